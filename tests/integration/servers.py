"""Real servers of other projects, each a process with an environment of its own, made on demand: LitServe, transformers
serve, llama-cpp-python, LiteLLM's proxy. The models are tiny, have random weights, and are made here.
"""

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.integration import environments
from tests.integration.clients import Server
from tests.integration.weir import free_ports

HERE = Path(__file__).parent
START_SECONDS = 240
STOP_SECONDS = 10
MASTER_KEY = "sk-weir-tests-0123456789abcdef0123456789"
LITELLM = """\
model_list:
- {{model_name: demo, litellm_params: {{model: openai/demo, api_base: "{direct}/v1", api_key: sk-test}}}}
- {{model_name: demo-cut, litellm_params: {{model: openai/demo-cut, api_base: "{direct}/v1", api_key: sk-test}}}}
- {{model_name: by-weir, litellm_params: {{model: openai/demo, api_base: "{through}/v1", api_key: sk-test}}}}
- {{model_name: by-weir-cut, litellm_params: {{model: openai/demo-cut, api_base: "{through}/v1", api_key: sk-test}}}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


@contextlib.contextmanager
def litserve(folder: Path) -> Iterator[Server]:
    """Its model says the last message again, and fails where that begins with `fail`."""
    interpreter = environments.python("litserve", "litserve")
    port, _ = free_ports()
    with _serving(folder, port, [str(interpreter), str(HERE / "litserve_server.py"), str(port)], "/health"):
        yield Server(f"http://127.0.0.1:{port}", "echo")


@contextlib.contextmanager
def transformers(folder: Path) -> Iterator[Server]:
    """1.2 GB to install."""
    interpreter = environments.python("transformers", "torch", "transformers[serving]>=5.24", "accelerate", "openai")
    model, (port, _) = folder / "tiny", free_ports()
    environments.run(str(interpreter), str(HERE / "tiny_model.py"), str(model))
    program = str(interpreter.with_name("transformers"))
    command = [program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with _serving(folder, port, command, "/health", HF_HUB_OFFLINE="1"):
        yield Server(f"http://127.0.0.1:{port}", str(model))


@contextlib.contextmanager
def llama(folder: Path) -> Iterator[Server]:
    """Its environment is built from source: a C++ compiler, and a quarter of an hour on two busy cores."""
    interpreter = environments.python("llama-cpp-python", "llama-cpp-python[server]>=0.3.36", "gguf")
    model, (port, _) = folder / "tiny.gguf", free_ports()
    environments.run(str(interpreter), str(HERE / "tiny_gguf.py"), str(model))
    command = [str(interpreter), "-m", "llama_cpp.server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "512", "--model_alias", "tiny"]
    with _serving(folder, port, command, "/v1/models"):
        yield Server(f"http://127.0.0.1:{port}", "tiny")


@contextlib.contextmanager
def litellm(folder: Path, direct: str, through: str) -> Iterator[Server]:
    """In front of two servers, by their root URLs: `demo` of the first, `by-weir` of the second."""
    interpreter = environments.python("litellm", "litellm[proxy]>=1.108")
    config, (port, _) = folder / "litellm.yaml", free_ports()
    config.write_text(LITELLM.format(direct=direct, through=through))
    program = str(interpreter.with_name("litellm"))
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": MASTER_KEY}
    with _serving(folder, port, command, "/health/liveliness", **offline):
        yield Server(f"http://127.0.0.1:{port}", "demo", MASTER_KEY)


@contextlib.contextmanager
def _serving(folder: Path, port: int, command: list[str], health: str, **environment: str) -> Iterator[None]:
    """In a process group of its own: some servers leave their workers behind."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        if not _ready(f"http://127.0.0.1:{port}{health}", process):
            raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-4000:]}")
        yield
    finally:
        _stop(process)


def _ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        refused = contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError)
        with refused, urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
        time.sleep(0.2)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
