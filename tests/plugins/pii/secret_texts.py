"""Texts with secrets, made up at run time from a seed: nothing that looks like a key is kept in the repository.

A labelled text is `(text, start, end)` of its one secret. Key formats follow their providers' documentation; contexts are
how people paste them into chats, configs, code, logs and shells.
"""

import base64
import random
import string
from collections.abc import Callable, Iterator

Labelled = tuple[str, int, int]
Maker = Callable[[random.Random], str]

LETTERS_DIGITS = string.ascii_letters + string.digits
URL64 = LETTERS_DIGITS + "_-"
B64 = LETTERS_DIGITS + "+/"
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits


def some(alphabet: str, length: int, prefix: str = "", suffix: str = "") -> Maker:
    ends = "".join(char for char in alphabet if char.isalnum())  # real keys seldom begin or end with a sign

    def make(rng: random.Random) -> str:
        return "".join((prefix, rng.choice(ends), *rng.choices(alphabet, k=length - 2), rng.choice(ends), suffix))

    return make


def parts(*makers: Maker | str) -> Maker:
    return lambda rng: "".join(part if isinstance(part, str) else part(rng) for part in makers)


def jwt(rng: random.Random) -> str:
    def encoded(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    subject = "".join(rng.choices(string.digits, k=10))
    return ".".join(
        [encoded('{"alg":"HS256","typ":"JWT"}'), encoded(f'{{"sub":"{subject}","name":"Ann"}}'), some(URL64, 43)(rng)]
    )


FORMATS: dict[str, Maker] = {
    "openai": some(LETTERS_DIGITS, 48, "sk-"),
    "openai project": some(URL64, 120, "sk-proj-"),
    "anthropic": some(URL64, 95, "sk-ant-api03-"),
    "openrouter": some(HEX, 64, "sk-or-v1-"),
    "groq": some(LETTERS_DIGITS, 52, "gsk_"),
    "hugging face": some(string.ascii_letters, 34, "hf_"),
    "replicate": some(LETTERS_DIGITS, 37, "r8_"),
    "weir": some(URL64, 43, "weir-"),
    "aws key id": some(UPPER, 16, "AKIA"),
    "aws session key id": some(UPPER, 16, "ASIA"),
    "google api key": some(URL64, 35, "AIza"),
    "google oauth": some(URL64, 60, "ya29."),
    "google client secret": some(URL64, 28, "GOCSPX-"),
    "azure ad": parts(some(LETTERS_DIGITS, 3), "8Q~", some(URL64, 34)),
    "digitalocean": some(HEX, 64, "dop_v1_"),
    "databricks": some(HEX, 32, "dapi"),
    "alibaba": some(LETTERS_DIGITS, 20, "LTAI"),
    "vault": some(URL64, 90, "hvs."),
    "doppler": some(LETTERS_DIGITS, 43, "dp.pt."),
    "pulumi": some(HEX, 40, "pul-"),
    "planetscale": some(URL64, 43, "pscale_tkn_"),
    "age": some("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58, "AGE-SECRET-KEY-1"),
    "github": some(LETTERS_DIGITS, 36, "ghp_"),
    "github app": some(LETTERS_DIGITS, 36, "ghs_"),
    "github fine-grained": parts(some(LETTERS_DIGITS, 22, "github_pat_"), "_", some(LETTERS_DIGITS, 59)),
    "gitlab": some(URL64, 20, "glpat-"),
    "npm": some(LETTERS_DIGITS, 36, "npm_"),
    "pypi": some(URL64, 150, "pypi-AgEIcHlwaS5vcmc"),
    "docker hub": some(URL64, 27, "dckr_pat_"),
    "rubygems": some(HEX, 48, "rubygems_"),
    "atlassian": some(URL64, 186, "ATATT3"),
    "sentry": some(HEX, 64, "sntryu_"),
    "grafana": parts(some(LETTERS_DIGITS, 32, "glsa_"), "_", some(HEX, 8)),
    "postman": parts(some(HEX, 24, "PMAK-"), "-", some(HEX, 34)),
    "new relic": some(UPPER, 27, "NRAK-"),
    "linear": some(LETTERS_DIGITS, 40, "lin_api_"),
    "notion": some(LETTERS_DIGITS, 46, "ntn_"),
    "slack bot": parts("xoxb-", some(string.digits, 12), "-", some(string.digits, 12), "-", some(LETTERS_DIGITS, 24)),
    "slack app": parts("xapp-1-A", some(UPPER, 10), "-", some(string.digits, 13), "-", some(HEX, 64)),
    "slack webhook": parts(
        "https://hooks.slack.com/services/T", some(UPPER, 8), "/B", some(UPPER, 8), "/", some(LETTERS_DIGITS, 24)
    ),
    "sendgrid": parts(some(URL64, 22, "SG."), ".", some(URL64, 43)),
    "mailgun": some(HEX, 32, "key-"),
    "mailchimp": some(HEX, 32, suffix="-us12"),
    "brevo": parts(some(HEX, 64, "xkeysib-"), "-", some(LETTERS_DIGITS, 16)),
    "twilio": some(HEX, 32, "SK"),
    "telegram": parts(some(string.digits, 10), ":AA", some(URL64, 33)),
    "discord": parts(some(LETTERS_DIGITS, 23, "M"), ".", some(LETTERS_DIGITS, 6), ".", some(URL64, 38)),
    "stripe": some(LETTERS_DIGITS, 24, "sk_" + "live_"),
    "stripe restricted": some(LETTERS_DIGITS, 99, "rk_" + "live_"),
    "square": some(URL64, 43, "sq0csp-"),
    "shopify": some(HEX, 32, "shpat_"),
    "jwt": jwt,
}

FORM_CONTEXTS = (
    "{}",
    "use {} for that",
    "My key is {}, is it still valid?",
    "here: {}.",
    "```\nexport X={}\n```",
    '{{"value": "{}"}}',
    "curl -H 'X-Thing: {}' https://api.example.com/v1",
    "| prod | {} |",
    "ERROR rejected ({}) at 12:01",
    "キーは{}です",
)

OPAQUE: dict[str, Maker] = {
    "hex 32": some(HEX, 32),
    "hex 64": some(HEX, 64),
    "alphanumeric 20": some(LETTERS_DIGITS, 20),
    "alphanumeric 40": some(LETTERS_DIGITS, 40),
    "base64": parts(some(B64, 42), "=="),
    "url64": some(URL64, 43),
    "uuid": lambda rng: "-".join("".join(rng.choices(HEX, k=size)) for size in (8, 4, 4, 4, 12)),
}
OPAQUE_CONTEXTS = (
    "api_key = '{}'",
    "apiKey: {}",
    '"api_key": "{}",',
    "API_KEY={}",
    "export ACME_API_TOKEN={}",
    'const acmeToken = "{}";',
    'var acmeToken string = "{}"',
    'acmeToken := "{}"',
    "acme_SECRET := `{}`",
    'ACME_TOKEN ::= "{}"',
    "$acmeToken .= '{}';",
    "'acme_secret' => '{}',",
    "<acmeToken>{}</acmeToken>",
    '<entry name="acmeToken" value="{}" />',
    "acme_token: >\n  {}",
    "acme_token: |\n  {}",
    "client_secret={}&grant_type=client_credentials",
    "https://api.example.com/v1?access_token={}",
    "AWS_SECRET_ACCESS_KEY={}",
    "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={};EndpointSuffix=core.windows.net",
    "Authorization: Bearer {}",
    "-H 'Authorization: token {}'",
    '{{"Authorization": "Bearer {}"}}',
    "x-api-key: {}",
    "my API key is {}",
    "The access token is {}, please rotate it",
    "API token {} was leaked",
    "secret: {}",
    "--token {}",
    'setenv("ACME_TOKEN", "{}")',
    '{{\\"token\\": \\"{}\\"}}',
    'private_key="{}"',
    "encryption key: {}",
)

SIGNS = "!@#$%^&*_+-="


def password(rng: random.Random) -> str:
    word = "".join(rng.choices(string.ascii_letters, k=rng.randint(4, 8)))
    return f"{word}{rng.choice(SIGNS)}{rng.randint(10, 9999)}{rng.choice(string.ascii_letters)}"


PASSWORDS: dict[str, Maker] = {
    "word and number": lambda rng: rng.choice(("hunter", "Summer", "dragon", "Tigger")) + str(rng.randint(2, 9999)),
    "with signs": password,
    "random": some(LETTERS_DIGITS, 14),
}
PASSWORD_CONTEXTS = (
    "password={}",
    "password: {}",
    "PASSWORD='{}'",
    '"password": "{}"',
    "DB_PASSWORD={}",
    "spring.datasource.password={}",
    'passwd: "{}"',
    "my password is {}",
    "The password is: {}",
    "Passwort: {}",
    "pwd={};server=db",
    "conn = connect(user='me', password='{}')",
    "<password>{}</password>",
    "contraseña: {}",
)
LOGIN_CONTEXTS = (
    "postgres://app:{}@db.example.com:5432/shop",
    "https://user:{}@example.com/path",
    "redis://:{}@10.0.0.5:6379/0",
    "curl -u admin:{} https://example.com",
)

NO_SECRETS = (
    "password=***",
    "password: ********",
    "password = get_password()",
    "password = os.environ['DB_PASSWORD']",
    "api_key = os.getenv('OPENAI_API_KEY')",
    "api_key: your-api-key-here",
    "OPENAI_API_KEY=<your key>",
    "OPENAI_API_KEY=sk-...",
    "api_key=${API_KEY}",
    "token: $GITHUB_TOKEN",
    "token: {{ secrets.token }}",
    "password: %(password)s",
    "token: ${{ secrets.GITHUB_TOKEN }}",
    "password: str = Field(min_length=8)",
    "def login(user: str, password: str | None = None) -> Token:",
    "max_tokens: 4096",
    '"max_tokens": 128000, "total_tokens": 17',
    "tokenizer = AutoTokenizer.from_pretrained('gpt2')",
    "token_type: bearer",
    "The password is required and must have 8 characters.",
    "password must be at least 8 characters",
    "Passwords are stored as bcrypt hashes.",
    "Forgot your password? Reset it here.",
    "if password != confirm_password: raise ValueError('passwords differ')",
    "self.token = token",
    "secret = settings.secret_key",
    "key = lambda pair: pair[1]",
    "primary_key=True, foreign_key='users.id'",
    "the secret of good bread is 24h of rest",
    "token authentication uses OAuth2 and SHA256",
    "Authorization: Bearer <token>",
    "Authorization: Bearer $TOKEN",
    "Bearer authentication is described in RFC6750",
    "auth: required",
    "author: John Smith 2024",
    "secretName: my-tls-secret",
    "password_file: /run/secrets/db_password",
    "private_key_path = '/etc/ssl/private/server.key'",
    "token_url: https://example.com/oauth/token",
    "https://user:password@example.com/",
    "https://example.com:8443/a:b@c",
    "git@github.com:org/repo.git",
    "-----BEGIN PRIVATE KEY-----",
    "it starts with -----BEGIN RSA PRIVATE KEY----- and then comes base64",
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n-----END CERTIFICATE-----",
    "sk-fading-circle sk-circle-dot",
    "risk-assessment-and-mitigation-strategies-2024",
    "npm_config_registry=https://registry.example.org",
    "hf_hub_download(repo_id='a/b')",
    "AKIA is how the ids of AWS keys begin",
    "pass the salt; pass 12345678 of the test",
    "the key to success is 100% practice",
    "keyboard: qwerty123",
    "monkey = Monkey2000()",
    "cache_key=9b74c9897bac770ffc029102a200c5de",
    "sort_key: created_at",
    "public_key: 04a1b2c3d4e5f6a7b8c9d0",
    "sha256:30912e5bcc21e78e1da31cb21347357d63eb15f77df19e0cceed279800ed6507",
    "/v1/files/file-Tbw646MnSpvmAD2UWBZsggHC/content",
    '{"id": "chatcmpl-9aBcDeFgHiJkLmNoPqRsTuVwXyZ12", "object": "chat.completion"}',
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
    'etag: "7bebab648b37cf3c145b3fc2a0665cd4"',
    "commit be9a07a799ae8f6001ef4b902ec0fa6cde3fd0ea",
    "pk_test_not_secret is a publishable key",
    "Basic authentication needs a user name",
    "the token budget is 8192 tokens per request",
    "api key rotation every 90days",
    "credentials: include",
    "use_auth_token=True",
    "next_token=None",
)


def labelled(template: str, value: str) -> Labelled:
    start = template.replace("{{", "{").replace("}}", "}").index("{}")
    return template.format(value), start, start + len(value)


def texts(seed: int, rounds: int = 1) -> Iterator[Labelled]:
    rng = random.Random(seed)
    for _ in range(rounds):
        for make in FORMATS.values():
            yield labelled(rng.choice(FORM_CONTEXTS), make(rng))
        for context in OPAQUE_CONTEXTS:
            yield labelled(context, rng.choice(list(OPAQUE.values()))(rng))
        for context in PASSWORD_CONTEXTS:
            yield labelled(context, rng.choice(list(PASSWORDS.values()))(rng))
        for context in LOGIN_CONTEXTS:
            yield labelled(context, PASSWORDS["random"](rng))
        yield labelled("key:\n{}\nkeep it", pem(rng))
        yield labelled('{{"private_key": "{}"}}', pem(rng).replace("\n", "\\n"))


def pem(rng: random.Random, lines: int = 6) -> str:
    kind = rng.choice(("PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "EC PRIVATE KEY"))
    body = "\n".join("".join(rng.choices(B64, k=64)) for _ in range(lines))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"
