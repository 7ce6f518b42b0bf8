"""`homeport down`, whatever state the home is in."""

from __future__ import annotations

from pathlib import Path

from homes import home_in


def test_down_works_in_every_state(tmp_path: Path) -> None:
    """It ends what a killed control plane left behind, and may be said when nothing runs."""
    site = tmp_path / "site"
    site.mkdir()
    program = "ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), SimpleHTTPRequestHandler).serve_forever()"
    (site / "server.py").write_text(f"import os\nfrom http.server import *\n{program}\n")
    (site / "Procfile").write_text("web: python server.py\n")
    (site / "requirements.txt").write_text("")
    with home_in(tmp_path / "home") as home:
        home.path.mkdir()
        assert "Nothing runs" in home.cli("down")
        home.up(site)
        home.kill()
        assert home.processes(), "the application lives on without its control plane"
        assert "was stopped" in home.cli("down")
        assert not home.processes()
        assert "Nothing runs" in home.cli("down")
        assert home.up(site)["status"] == "live"
