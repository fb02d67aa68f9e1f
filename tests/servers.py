"""Real servers on loopback, each started once for all tests: an S3 one and an SSH one."""

import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # of sshd; in few users' PATH


def need(program):
    """Path of a program; without it the test is skipped, or fails in CI."""
    found = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], *SBIN]))
    if found is None:
        reason = f"{program} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Server:
    """A process that listens, restarted on the same port with what it had stored."""

    def __init__(self, folder, command):
        self.folder = folder
        self.log = folder / "log"
        self.command = command
        self.process = None

    def start(self):
        """Start it where it does not run, and wait until it answers."""
        if self.process is None:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        deadline = time.monotonic() + 300
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.05)

    def kill(self):
        """SIGKILL, as by a power cut."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class S3(Server):
    """SeaweedFS's S3 gateway, which knows one pair of keys."""

    key, secret, region = "TESTKEY", "test-secret-7f31", "us-east-1"

    def __init__(self, folder):
        who = {"accessKey": self.key, "secretKey": self.secret}
        may = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [{"name": "tests", "credentials": [who], "actions": may}]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        (folder / "stored").mkdir()
        # Each bucket has its own volumes, and by default seven at once.
        (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3")
                 for kind in ("", ".grpc")]  # fmt: skip
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.ports = list(ports.values())
        self.port = ports["s3.port"]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        options = {
            **ports,
            "dir": folder / "stored",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "filer": "true",
            "filer.localSocket": folder / "filer.sock",
            "s3": "true",
            "s3.config": folder / "s3.json",
            "s3.localSocket": folder / "s3.sock",
            "s3.autoCreateBucket": "false",  # a missing bucket is a mistake, as with Amazon's
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "master.electionTimeout": "1s",  # of the one there is
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": "64",
            "volume.max": "500",
        }
        command = [need("weed"), "-logtostderr", "server"]
        super().__init__(folder, command + [f"-{name}={value}" for name, value in options.items()])

    @property
    def client(self):
        return get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=self.region,
            config=Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=30),
        )

    def kill(self):
        super().kill()
        for port in self.ports:  # it leaves its sockets, in this folder whatever it is told
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                left.unlink()

    def answers(self):
        client = self.client
        try:
            if not any(one["Name"] == "ready" for one in client.list_buckets()["Buckets"]):
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    def bucket(self, name):
        """Make a bucket of that name and return its URL."""
        self.start()
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def keys(self, bucket):
        """Size in bytes of each object in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", ())}

    def read(self, bucket, key):
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def write(self, bucket, key, data):
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def delete(self, bucket, key):
        self.client.delete_object(Bucket=bucket, Key=key)

    def remote(self, url, port=None):
        """`.dvc/config`'s lines of a default remote `storage` there: what Git may see."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return (
            "[core]\n    remote = storage\n"
            f"['remote \"storage\"']\n    url = {url}\n"
            f"    endpointurl = {endpoint}\n    region = {self.region}\n"
        )

    def keys_of_remote(self, secret=None):
        """`.dvc/config.local`'s lines: what Git must not see."""
        return (
            "['remote \"storage\"']\n"
            f"    access_key_id = {self.key}\n    secret_access_key = {secret or self.secret}\n"
        )


class SSH(Server):
    """OpenSSH's server, which lets in the user that runs the tests, by one key."""

    def __init__(self, folder):
        sshd = need("sshd")
        self.key = folder / "user_key"
        for key in (self.key, folder / "host_key"):
            command = [need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        (self.port,) = free_ports(1)
        self.user = getpass.getuser()
        (folder / "authorized_keys").write_text(Path(f"{self.key}.pub").read_text())
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\n"
            f"HostKey {folder}/host_key\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\n"
            f"PidFile {folder}/pid\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            "PermitRootLogin prohibit-password\n"
            "StrictModes no\n"  # temporary folders may be writable by a group
            "Subsystem sftp internal-sftp\n"
        )
        super().__init__(folder, [sshd, "-D", "-e", "-f", folder / "sshd_config"])
        if os.geteuid() == 0:  # only then it gives up its rights in this folder
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


class Line:
    """A line to a server on loopback, which can be cut when so many bytes have passed."""

    def __init__(self, port):
        self.to = ("127.0.0.1", port)
        self.left = None  # bytes in both directions until it is cut; None: never
        self.at_the_cut = None
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count, do):
        """Call `do`, as to kill the server, after that many bytes; from then on nothing passes."""
        self.at_the_cut = do
        self.left = count

    def mend(self):
        self.left = None

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.to, timeout=60)
            except OSError:
                near.close()
                continue
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source, sink):
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(1 << 14):
                with self._lock:
                    if self.left is not None:
                        passed = data[: self.left]
                        self.left -= len(passed)
                        if self.left == 0 and self.at_the_cut is not None:
                            self.at_the_cut()
                            self.at_the_cut = None
                        if len(passed) < len(data):
                            break
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line():
    """Makes a line to a port: line(s3.port)."""
    with contextlib.ExitStack() as stack:

        def make(port):
            made = Line(port)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A running S3 server; a test that kills it starts it again."""
    server = S3(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()  # its polite end takes fifteen seconds


@pytest.fixture(scope="session")
def ssh(tmp_path_factory):
    """A running SSH server."""
    server = SSH(tmp_path_factory.mktemp("ssh"))
    server.start()
    yield server
    server.kill()
