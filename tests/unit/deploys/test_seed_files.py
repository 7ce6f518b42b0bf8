"""Files that new databases are filled from: found inside the source alone, kept by content, and told when nobody runs them."""

from __future__ import annotations

import os
from pathlib import Path

from doors import fake_platform, go_live

from homeport.deploys.retention import sweep
from homeport.deploys.seeds import notes, seeds_of, with_seeds
from homeport.model.addon import MariaDB, Postgres, Redis
from homeport.model.spec import Spec


def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "init").mkdir(parents=True)
    for name in ("02-data.sql", "01-tables.sql", "03.sql.gz", "start.sh", "README.md"):
        (root / "init" / name).write_text(name)
    (tmp_path / "outside.sql").write_text("secret")
    (root / "init" / "link.sql").symlink_to(tmp_path / "outside.sql")
    return root


def test_files_run_by_name_and_stay_when_the_source_goes(tmp_path: Path) -> None:
    """What a Compose file mounts is taken in the order of names; links that leave the source are not followed."""
    root, home = source(tmp_path), tmp_path / "home"
    home.mkdir()
    spec = Spec(name="shop", addons={"db": Postgres(extensions={"init": ["./init"]}), "cache": Redis()})
    addon = with_seeds(spec, root, home).addons["db"]
    assert [seed.path for seed in addon.seeds] == ["init/01-tables.sql", "init/02-data.sql", "init/03.sql.gz"]
    for file in (root / "init").iterdir():
        file.unlink()
    assert [seed.file.read_text() for seed in seeds_of(addon, home)] == ["01-tables.sql", "02-data.sql", "03.sql.gz"]
    assert with_seeds(spec, root, home).addons["cache"] == Redis()


def test_a_file_goes_when_no_kept_release_would_fill_a_database_from_it(tmp_path: Path) -> None:
    """What a release names stays however old it is; what a deploy has just kept is young, also when it lay there before."""
    root, platform = source(tmp_path), fake_platform(tmp_path / "home")
    spec = Spec(name="shop", addons={"db": Postgres(init=("init",))})
    seeds = with_seeds(spec, root, platform.home).addons["db"].seeds
    named, again, forgotten = (platform.home / "seeds" / seed.digest for seed in seeds)
    go_live(platform, {"addons": {"db": {"kind": "postgres", "seeds": [seeds[0].model_dump()]}}})
    for file in (named, again, forgotten):
        os.utime(file, (0, 0))
    with_seeds(Spec(name="shop", addons={"db": Postgres(init=(seeds[1].path,))}), root, platform.home)
    assert sweep(platform) == [f"seeds/{forgotten.name}"]
    assert named.exists() and again.exists() and not forgotten.exists()
    platform.store.close()


def test_a_plan_keeps_nothing_and_names_what_is_not_run(tmp_path: Path) -> None:
    """Shell scripts and files that are not there are told beforehand."""
    root = source(tmp_path)
    addon = MariaDB(init=("init", "gone.sql", "../outside.sql"))
    spec = with_seeds(Spec(name="shop", addons={"db": addon}), root, None)
    assert len(spec.addons["db"].seeds) == 3
    said = notes(addon, root)
    assert [text.split()[0] for text in said] == ["there", "there", "init/start.sh"]
    assert "not run" in said[2]
