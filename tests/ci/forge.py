"""A server on loopback that takes comments like GitHub and GitLab, and a runner for jobs."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
OWN = 9  # GitLab's id of the user who has the token
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


class Forge:
    """A server that keeps the comments of one pull or merge request, and uploaded pictures."""

    def __init__(self, certificate=None):
        self.comments, self.uploads, self.requests = [], [], []
        forge = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                text = json.dumps(forge.answer(self.command, self.path, self.headers, body))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815 - names of the base class

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method, path, headers, body):
        """Answer as both APIs do: list, add or replace comments, or accept a picture."""
        path = path.partition("?")[0]
        self.requests.append((method, path))
        if method == "GET":
            return {"id": OWN} if path.endswith("/user") else self.comments
        if path.endswith("/uploads"):
            self.uploads.append(body)
            return {"markdown": f"![picture](/uploads/{len(self.uploads)}.png)"}
        text = text_of(headers, body)
        if method == "POST":
            made = {"id": 100 + len(self.comments), "body": text}
            self.comments.append(made | {"user": {"type": "Bot"}, "author": {"id": OWN}})
            return self.comments[-1]
        (found,) = [one for one in self.comments if one["id"] == int(path.split("/")[-1])]
        found["body"] = text
        return found

    def close(self):
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()


def text_of(headers, body):
    """Return the comment in a request: gh sends JSON, curl a form."""
    kind = headers["Content-Type"]
    if kind.startswith("application/json"):
        return json.loads(body)["body"]
    form = message_from_bytes(f"Content-Type: {kind}\n\n".encode() + body)
    return form.get_payload()[0].get_payload(decode=True).decode()


def workflow(name):
    """Read a CI file, named from the project's top folder."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def filled(text, values):
    """Replace each `${{ expression }}` by its value."""
    return EXPRESSION.sub(lambda match: values[match[1]], text)


def bash(script, *, cwd, env):
    """Run a step like GitHub's runner with `shell: bash`; return its status and output."""
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


def run_job(job, *, cwd, env, values):
    """Run the commands of a job's steps, except the installation.

    Returns:
        True if all succeeded, and the output of each step that ran, by its name.
    """
    failed, printed = False, {}
    env = env | {key: filled(str(value), values) for key, value in job.get("env", {}).items()}
    for step in job["steps"]:
        if "run" not in step or step["name"] == "Install":
            continue
        condition = step.get("if")
        if condition is None:
            wanted = not failed
        else:
            inner = EXPRESSION.fullmatch(condition)[1]
            wanted = inner == "!cancelled()" or (not failed and values[inner] == "true")
        if wanted:
            status, output = bash(filled(step["run"], values), cwd=cwd, env=env)
            printed[step["name"]] = output
            failed |= status != 0
    return not failed, printed


def carry_artifact(job, source, target):
    """Copy the artifact that a job uploads to the folder of the job that downloads it."""
    (upload,) = [one for one in job["steps"] if "upload-artifact" in one.get("uses", "")]
    target.mkdir()
    for pattern in upload["with"]["path"].split():
        for found in source.glob(pattern):
            place = target / found.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if found.is_dir() else shutil.copy)(found, place)


def environment(home):
    """Return a runner's environment variables: this Python's tools, no settings of the user."""
    kept = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "LANG") if name in os.environ}
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT / "src"),  # `fieldguide` is the code of this tree
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_NO_ANALYTICS": "1",
    }
