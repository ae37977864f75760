"""The page as it is served: one start, asked over HTTP."""

import gc
import socket
import subprocess
import sys
import urllib.request

import pytest
from tiny import MODEL, params, processor

from janus_jax import app
from janus_jax.errors import UserError
from janus_jax.page import view
from janus_jax.page.handlers import Handlers
from janus_jax.sampling.answer import GREEDY_ANSWER, chat
from janus_jax.sampling.density import Sampling

pytestmark = [
    pytest.mark.usefixtures("quick_compiles"),
    # gradio leaves event loops and their sockets to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cleared():
    """What gradio has left is collected here, not in another file's tests, where its warnings would be errors."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def address(cleared):
    pytest.importorskip("gradio")
    from janus_jax.page import layout

    made = Handlers("here", MODEL, params(), processor(), Sampling(max_reason_tokens=5), 60)
    page = layout.build(made)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    yield layout.serve(page, "127.0.0.1", port)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def client(address):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False)


def test_the_page_asks_nothing_of_other_hosts(address):
    page = urllib.request.urlopen(address).read().decode()
    for foreign in ("googleapis", "gstatic", "cdnjs", "jsdelivr", "unpkg", "api.gradio.app"):
        assert foreign not in page
    assert '"analytics_enabled":false' in page.replace(" ", "")


def test_a_question_over_http(client):
    job = client.submit(None, "What is it?", api_name="/ask")
    [expected] = chat(MODEL, params(), processor(), [([], "What is it?")], GREEDY_ANSWER)
    assert job.result(timeout=60) == ("Done.", view.answer(expected))
    assert len(job.outputs()) > 3


def test_an_error_over_http(client):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match="the question is empty: write one"):
        client.predict(None, " ", api_name="/ask")


def test_a_port_that_is_taken(address):
    from janus_jax.page import layout

    made = Handlers("shapes-rl", MODEL, params(), processor(), Sampling(), 60)
    with pytest.raises(UserError, match="another --port"):
        layout.serve(layout.build(made), "127.0.0.1", int(address.rstrip("/").rsplit(":", 1)[1]))


def test_without_gradio():
    code = "import sys; sys.modules['gradio'] = None; from janus_jax import app, cli; cli.run(app.main)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == 'error: the page needs gradio (gradio is missing): in the checkout, pip install -e ".[app]"\n'


def test_flags():
    for wrong in (["--port", "0"], ["--seconds", "0"], ["--seconds", "nan"]):
        with pytest.raises(UserError, match=wrong[0]):
            app.main(wrong)
