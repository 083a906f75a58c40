"""Settings of tracing: a collector that is one, and words of help where OpenTelemetry is not installed."""

import pathlib
import subprocess
import sys

import pytest

from proxy import cli

CONFIG = """upstreams: {a: {base_url: "http://a/v1"}}
plugins:
  - tracing: {%s}
routes: [{name: default, targets: [a]}]
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    def run(settings):
        monkeypatch.chdir(tmp_path)
        pathlib.Path("config.yaml").write_text(CONFIG % settings)
        return cli.main(["check", "config.yaml"]), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "settings", ["", 'endpoint: ""', 'endpoint: "https://c:4318/v1/traces", sample: 10%', "headers: {x-key: k}"]
)
def test_what_may_be_written(check, settings):
    assert check(settings) == (0, "")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("endpoint: collector:4318", "endpoint: is no URL of a collector; write it as in http://otel-collector:4318"),
        ('endpoint: "http://me:canary@c"', "endpoint: is no URL of a collector"),
        ('endpoint: "http://c/?key=canary"', "endpoint: is no URL of a collector"),
        ("sample: 0.1", "sample: 0.1 is not a share; write a number up to 100 and %, as in 10%"),
        ('headers: {"x y": canary}', "headers['x y']: 'x y' is not a header's name"),
        ('headers: {x: "canary\\n"}', "headers.x: has a line break or a control character"),
        ('service_name: ""', "service_name: must have 1 or more characters"),
    ],
)
def test_what_is_wrong_is_told_without_secrets(check, settings, said):
    code, err = check(settings)
    assert (code, said in err, "canary" in err) == (1, True, False), err


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from proxy import cli
sys.exit(cli.main(["check", "config.yaml"]))
"""


def test_without_opentelemetry_check_says_what_to_install(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG % "")
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True, timeout=40)
    assert (done.returncode, done.stderr) == (
        1,
        "config.yaml:3 plugins[0].tracing: needs OpenTelemetry, which is not installed; run `pip install 'weir-proxy[otel]'`\n",
    )


def test_a_config_that_does_not_trace_imports_nothing_of_it(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG.replace("tracing: {%s}", "metering"))
    script = "import sys; from proxy import cli; cli.main(['check', 'config.yaml']); print(*[m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=40)
    assert done.stdout.splitlines()[1:] == [""], done
