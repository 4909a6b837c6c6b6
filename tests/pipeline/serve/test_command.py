"""`pipeline serve` as a command: what it prints, and its errors."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from ruamel.yaml import YAML

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.project.init import template
from pipeline.serve import run
from pipeline.serve.run import is_loopback
from tests.pipeline.locate.test_locate import call, recipe, save_localiser, scene
from tests.support.uploads import ask, content, send, serving


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_localiser(tmp_path_factory.mktemp("model") / "localiser", recipe())


@pytest.fixture
def served(monkeypatch):
    """The applications that the command would serve."""
    apps = []

    class Server:
        def run(self, sockets):
            assert sockets[0].getsockname()[1] > 0

    monkeypatch.setattr(run, "server_of", lambda app: apps.append(app) or Server())
    return apps


def test_loopback_needs_no_warning(model, served, capsys, monkeypatch):
    monkeypatch.setenv("PLACECACHE_TOKEN", "secret")
    code, out, err = call(capsys, "serve", "--model", model, "--port", "0")
    assert (code, err) == (0, "")
    assert "on http://127.0.0.1:" in out
    assert "warning" not in out
    monkeypatch.undo()
    with serving(served[0]) as port:
        assert ask(port, "/metrics").status == 401


def test_other_addresses_are_warned_of(model, served, capsys):
    _, out, _ = call(capsys, "serve", "--model", model, "--host", "0.0.0.0", "--port", "0")
    assert "warning: other machines can reach this address" in out
    assert "anyone can use it: set --token" in out
    _, out, _ = call(capsys, "serve", "--model", model, "--host", "0.0.0.0", "--port", "0", "--token", "x")
    assert "warning: " in out
    assert "set --token" not in out
    assert [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "::", "example.org")] == [
        *(True, True, True),
        *(False, False),
    ]


def test_the_crops_are_those_of_the_project(model, served, tmp_path, capsys):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "localiser").symlink_to(model)
    settings = YAML().load(template("params.yaml").read_text())
    settings["eval"]["crops"] = 1
    YAML().dump(settings, tmp_path / "params.yaml")
    assert call(capsys, "--project", tmp_path, "serve", "--port", "0")[0] == 0
    photo = content(scene(160, 64), "PNG")
    expected = PhotoLocaliser.load(model, crops=1).locate(photo).as_dict()
    with serving(served[0]) as port:
        (answer,) = json.loads(send(port, [photo]).body)
    assert answer == {**expected, "photo": "0.jpg"}
    assert answer["places"] != PhotoLocaliser.load(model).locate(photo).as_dict()["places"]


def test_a_port_in_use_and_odd_tokens_are_errors(model, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = call(capsys, "serve", "--model", model, "--port", port)
    assert code == 1
    assert f"127.0.0.1 port {port} cannot be used (Address already in use): choose others" in " ".join(
        err.split()
    )
    code, _, err = call(capsys, "serve", "--model", model, "--token", "\u00e9")
    assert (code, "use ASCII" in err) == (1, True)


def test_without_the_extra_it_says_what_to_install(model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pipeline.serve.app", None)  # importing it raises ModuleNotFoundError
    code, _, err = call(capsys, "serve", "--model", model)
    assert code == 1
    assert "run `pip install 'placecache[serve]'`" in " ".join(err.split())
