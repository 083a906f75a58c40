import pytest

from tests.plugins.pii.found import found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("write to Ann.Lee+news@mail.example.co.uk.", "Ann.Lee+news@mail.example.co.uk"),
        ("'a@b.com'", "a@b.com"),
        ("d'arcy.m@x.ai", "d'arcy.m@x.ai"),
        ("<me@xn--bcher-kva.de>", "me@xn--bcher-kva.de"),
        ("mailto:ann@example.com?subject=Hello", "ann@example.com"),
        ("メールはann@example.comで", "ann@example.com"),
        (r"{\"to\": \"x\\nann@example.com\"}".replace("\\\\", "\\"), "ann@example.com"),
        ("ann@163.com", "ann@163.com"),
        ("https://x.example.com/u/ann@example.com", "ann@example.com"),
        ("no.one@museum.travel)", "no.one@museum.travel"),
    ],
)
def test_email_addresses(text, address):
    assert found(text) == [f"email: {address}"]


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:org/repo.git",
        "ssh://git@host.example.com/repo",
        "npm i @types/node@20.1.0 react@18.2.0 next@13.4.0-rc.canary",
        "docker pull nginx@sha256:2d862fdbf19e0a5cc4f979fe5e2233f1016aca5213dbcaafdba80f339712975a",
        "user@host$ ls",
        "info@presidio.",
        "scores = q @ k.T; y = q@k.transpose(1, 2)",
        "icon@2x.png",
        "const EMAIL_PATTERN = /[a-z]+@[a-z]+/;",
        "@app.route('/x')",
        "https://medium.com/@user.name/post",
    ],
)
def test_no_email_addresses(text):
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("client: 10.1.2.3, upstream", "10.1.2.3"),
        ("http://192.168.0.1:8080/x", "192.168.0.1"),
        ("10.0.0.0/8", "10.0.0.0"),
        ("to 203.0.113.7.", "203.0.113.7"),
        ("IPv6: 2001:db8::1.", "2001:db8::1"),
        ("[fe80::1]:443", "fe80::1"),
        ("from 7b5a:ac69:2a6c:1663:9f42:2437:5638:4a4:443 on", "7b5a:ac69:2a6c:1663:9f42:2437:5638:4a4"),
        ("::ffff:192.168.1.1", "::ffff:192.168.1.1"),
        ("2001:db8:0:0:0:0:192.168.1.1", "2001:db8:0:0:0:0:192.168.1.1"),
        ("my ip: ::1", "::1"),
    ],
)
def test_ip_addresses(text, address):
    assert found(text) == [f"ip_address: {address}"]


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4, v10.0.0.1, pip install foo==1.2.3.4",
        "Windows 10.0.17093.3871, Chrome/123.0.6071.9570",
        "300.168.1.1",
        "See sections 1.2.3, 8.7.2 and 4.5.6.",
        "eth0 c8:7b:51:1a:6a:5a and 00:11:22:33:44:55:66:77",
        "a::b::c std::collections::HashMap crate::db::add::face() dead::beef",
        "x[::1] y[1::2] z[a:b, ::3]",
        "at 12:30:45, 2001::25de::cade",
        "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
    ],
)
def test_no_ip_addresses(text):
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("see https://example.com/a(b)/c?d=e#f.", "https://example.com/a(b)/c?d=e#f"),
        ("(http://www.example.de/)", "http://www.example.de/"),
        ("<ftp://files.example.com/x>", "ftp://files.example.com/x"),
    ],
)
def test_urls_where_they_are_asked_for(text, url):
    assert found(text, "url") == [f"url: {url}"]
    assert found(text) == []
