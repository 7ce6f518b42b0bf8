"""A git repository as a source: a bare mirror is kept, and one commit of it is taken as a snapshot."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from homeport.drivers.files import locked
from homeport.drivers.sources.base import Source
from homeport.drivers.sources.errors import SourceUnavailable
from homeport.drivers.sources.git import Git, check_address, check_reference, environment, without_credentials
from homeport.drivers.sources.snapshot import SnapshotStore
from homeport.model.release import Revision

_COMMIT = re.compile(r"^[0-9a-f]{7,64}$")


class GitSource:
    """Fetches branches, tags and commits. `credentials` are variables for git alone (`GIT_SSH_COMMAND`, `GIT_CONFIG_*`)."""

    def __init__(
        self, url: str, sources_dir: Path, *, network: Mapping[str, str] | None = None, credentials: Mapping[str, str] | None = None
    ) -> None:
        self.url = check_address(url)
        self.store = SnapshotStore(sources_dir)
        self.mirror = sources_dir / ".git" / hashlib.sha256(without_credentials(url).encode()).hexdigest()[:32]
        self.git = Git({**environment(sources_dir / ".cache", network or {}), **(credentials or {})})

    def fetch(self, reference: str = "") -> tuple[Revision, Path]:
        """Take a branch, tag or commit (default: the default branch) into the store."""
        wanted = check_reference(reference) if reference else "HEAD"
        with locked(self.mirror.with_suffix(".lock")):
            self._prepare()
            commit, branch = self._resolve(wanted)
            return self._snapshot(commit, branch)

    def _prepare(self) -> None:
        if not (self.mirror / "HEAD").is_file():
            self.mirror.mkdir(parents=True, exist_ok=True)
            self._must(self.mirror, "init", "--bare", "--quiet", "--initial-branch=main", ".")

    def _resolve(self, wanted: str) -> tuple[str, str]:
        """Fetch what is wanted and return its commit, with the branch name when it is one."""
        for candidate, branch in self._candidates(wanted):
            if _COMMIT.match(candidate) and self._has(candidate):
                return self._name(candidate), branch
            code, _, errors = self.git.run(
                self.mirror, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force",
                "--", self.url, f"+{candidate}:refs/homeport/fetched",
            )  # fmt: skip
            if code == 0:
                return self._name("refs/homeport/fetched"), branch if candidate != "HEAD" else self._default_branch()
        if _COMMIT.match(wanted):  # a short commit name: servers only hand out full ones
            self.git.run(self.mirror, "fetch", "--quiet", "--no-recurse-submodules", "--", self.url, "+refs/heads/*:refs/homeport/heads/*")
            if self._has(wanted):
                return self._name(wanted), ""
        raise SourceUnavailable(
            source=without_credentials(self.url),
            why=f"{wanted} could not be fetched: {self._clean(errors)}",
            fix="Check the address, the name, and that the machine may read the repository.",
        )

    def _candidates(self, wanted: str) -> list[tuple[str, str]]:
        if wanted == "HEAD":
            return [("HEAD", "")]
        if wanted.startswith("refs/"):
            return [(wanted, wanted.removeprefix("refs/heads/") if wanted.startswith("refs/heads/") else "")]
        found = [(f"refs/heads/{wanted}", wanted), (f"refs/tags/{wanted}", "")]
        return [(wanted, ""), *found] if _COMMIT.match(wanted) else found

    def _default_branch(self) -> str:
        code, output, _ = self.git.run(self.mirror, "ls-remote", "--symref", "--", self.url, "HEAD")
        first = output.decode(errors="replace").partition("\t")[0] if code == 0 else ""
        return first.removeprefix("ref: refs/heads/") if first.startswith("ref: refs/heads/") else ""

    def _has(self, commit: str) -> bool:
        return self.git.run(self.mirror, "cat-file", "-e", f"{commit}^{{commit}}")[0] == 0

    def _name(self, reference: str) -> str:
        return self._must(self.mirror, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}").decode().strip()

    def _snapshot(self, commit: str, branch: str) -> tuple[Revision, Path]:
        """Write the commit's tree to a scratch folder and take it. No checkout filters run: the index is written by git itself."""
        with tempfile.TemporaryDirectory(prefix="homeport-checkout-", dir=self.mirror.parent) as made:
            scratch = Path(made).resolve()
            tree = scratch / "tree"
            tree.mkdir()
            extra = {"GIT_DIR": str(self.mirror), "GIT_WORK_TREE": str(tree), "GIT_INDEX_FILE": str(scratch / "index")}
            self._must(tree, "read-tree", commit, extra=extra)
            self._must(tree, "checkout-index", "--all", "--force", "--quiet", extra=extra)
            listed = self._must(tree, "ls-files", "-z", "--cached", extra=extra)
            paths = [path for path in listed.decode("utf-8", errors="surrogateescape").split("\0") if path]
            digest, manifest, target = self.store.take(tree, paths, without_credentials(self.url))
        message = self._must(self.mirror, "log", "-1", "--no-show-signature", "--format=%s", commit).decode(errors="replace").strip()
        return Revision(
            digest=digest,
            commit=commit,
            branch=branch,
            origin=without_credentials(self.url),
            message=message[:500],
            files=len(manifest),
            bytes=sum(entry.size for entry in manifest.values()),
        ), target

    def _must(self, folder: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> bytes:
        code, output, errors = self.git.run(folder, *arguments, extra=extra)
        if code:
            raise SourceUnavailable(
                source=without_credentials(self.url),
                why=f"git {arguments[0]} failed: {self._clean(errors)}",
                fix="Check that the repository is complete (`git fsck`).",
            )
        return output

    def _clean(self, errors: str) -> str:
        """Git's own words without the address, which may hold a password."""
        return errors.replace(self.url, without_credentials(self.url))[-300:] or "no reason given"


_: type[Source] = GitSource
