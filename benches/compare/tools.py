"""bulla and its rivals, each as a list of commands. Rivals are only ever external programs. Encryption is on for all;
compression is each tool's default (zstd), and zstd 3 for borg, whose default is lz4."""

import os
import shutil
import subprocess
import sys

PASSWORD = "compare-only"


class Tool:
    """A program found at `path`; `home` is fresh for every repository, so caches start empty."""

    name = version_words = package = None
    verifies = True
    packages = ()

    def __init__(self, path):
        self.path = path

    def version(self):
        out = subprocess.run([self.path, *self.version_words], capture_output=True, text=True)
        return (out.stdout or out.stderr).splitlines()[0].strip()

    def place(self, work):
        self.repo, self.key = os.path.join(work, "repo"), os.path.join(work, "key")
        home = os.path.join(work, "home")
        os.makedirs(home)
        with open(self.key, "w") as f:
            f.write(PASSWORD)
        os.chmod(self.key, 0o600)
        keep = {k: os.environ[k] for k in ("PATH", "LANG") if k in os.environ}
        self.env = keep | {"HOME": home, "XDG_CACHE_HOME": home + "/cache", "TMPDIR": work} | self.settings()

    def settings(self):
        return {}

    def restored(self, source, target):
        """Where in `target` the source ends up."""
        return target + source


class Bulla(Tool):
    name, version_words = "bulla", ["version"]

    def words(self, *rest):
        return [self.path, "-q", "-r", self.repo, "--key-file", self.key, *rest]

    def init(self):
        os.unlink(self.key)
        return [self.path, "-q", "-r", self.repo, "init", "--key-file-out", self.key,
                "--recovery-key-out", self.key + ".recovery"]

    def backup(self, source):
        return self.words("backup", source)

    def restore(self, source, target):
        return self.words("restore", "latest", "--target", target)

    def verify(self):
        return self.words("check", "--read-data")


class Restic(Tool):
    name, version_words, package = "restic", ["version"], ("apt", "restic")

    def settings(self):
        return {"RESTIC_PASSWORD_FILE": self.key, "RESTIC_REPOSITORY": self.repo}

    def init(self):
        return [self.path, "-q", "init"]

    def backup(self, source):
        return [self.path, "-q", "backup", source]

    def restore(self, source, target):
        return [self.path, "-q", "restore", "latest", "--target", target]

    def verify(self):
        return [self.path, "-q", "check", "--read-data"]


class Rustic(Tool):
    name, version_words, package = "rustic", ["--version"], ("cargo", "rustic-rs")

    def settings(self):
        return {"RUSTIC_PASSWORD": PASSWORD, "RUSTIC_REPOSITORY": self.repo, "RUSTIC_NO_PROGRESS": "true",
                "RUSTIC_LOG_LEVEL": "warn"}

    def init(self):
        return [self.path, "init"]

    def backup(self, source):
        return [self.path, "backup", source]

    def restore(self, source, target):
        return [self.path, "restore", "latest", target]

    def verify(self):
        return [self.path, "check", "--read-data"]


class Borg(Tool):
    name, version_words, package = "borg", ["--version"], ("pip", "borgbackup")
    packages = ("libacl1-dev", "libssl-dev", "liblz4-dev", "libxxhash-dev", "libzstd-dev", "pkg-config")

    def settings(self):
        return {"BORG_PASSPHRASE": PASSWORD, "BORG_REPO": self.repo, "BORG_BASE_DIR": self.repo + ".base",
                "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def init(self):
        return [self.path, "init", "--encryption", "repokey-blake2"]

    def backup(self, source):
        return [self.path, "create", "--compression", "zstd,3", "::{now:%s.%f}", source]

    def restore(self, source, target):
        newest = subprocess.run([self.path, "list", "--last", "1", "--short"], env=self.env, check=True,
                                capture_output=True, text=True).stdout.strip()
        return ["sh", "-c", 'cd "$1" && exec "$2" extract "::$3"', "sh", target, self.path, newest]

    def verify(self):
        return [self.path, "check", "--verify-data"]


class Bupstash(Tool):
    name, version_words, package = "bupstash", ["--version"], ("cargo", "bupstash")
    packages = ("libsodium-dev", "pkg-config")
    verifies = False

    def settings(self):
        return {"BUPSTASH_REPOSITORY": self.repo, "BUPSTASH_KEY": self.key}

    def init(self):
        os.unlink(self.key)
        return ["sh", "-c", '"$1" init && "$1" new-key -o "$2"', "sh", self.path, self.key]

    count = 0

    def backup(self, source):
        # Restores name one item, so each backup gets a name of its own.
        self.count += 1
        return [self.path, "put", "-q", f"name=compare-{self.count}", source]

    def restore(self, source, target):
        # A single file is stored as a plain stream.
        if os.path.isfile(source):
            return ["sh", "-c", '"$1" get -q "$2" > "$3"/content', "sh", self.path, f"name=compare-{self.count}", target]
        return [self.path, "restore", "-q", "--ownership", "--into", target, f"name=compare-{self.count}"]

    def restored(self, source, target):
        return os.path.join(target, "content") if os.path.isfile(source) else target


RIVALS = {c.name: c for c in (Restic, Rustic, Borg, Bupstash)}


def find(name, folders):
    """The program `name` from `folders`, then from PATH."""
    return shutil.which(name, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))


def install(rival, folder):
    """Gets a rival from its registry: Debian, PyPI (into an environment of its own) or crates.io."""
    kind, package = rival.package
    say = lambda *words: subprocess.run(words, check=True, stdout=sys.stderr)
    if rival.packages or kind == "apt":
        say("apt-get", "install", "-y", "-qq", *rival.packages, *([package] if kind == "apt" else []))
    if kind == "pip":
        environment = os.path.join(folder, package)
        say(sys.executable, "-m", "venv", environment)
        say(os.path.join(environment, "bin", "pip"), "install", "--quiet", package)
        os.makedirs(os.path.join(folder, "bin"), exist_ok=True)
        os.symlink(os.path.join(environment, "bin", rival.name), os.path.join(folder, "bin", rival.name))
    if kind == "cargo":
        say("cargo", "install", "--quiet", "--locked", "--root", folder, package)
