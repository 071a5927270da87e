"""As much of a Kubernetes API server as Snakemake's executor talks to, on the loopback device.

A job's pod is a process of this machine: its command, started in an empty folder of its own, sees the folders that a
volume would bring. What a real server refuses, as far as it matters here, is refused with the same code.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

JOBS = re.compile(r"/apis/batch/v1/namespaces/(?P<namespace>[^/]+)/jobs(/(?P<name>[^/]+))?(?P<status>/status)?$")
CORE = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/(?P<kind>pods|secrets)(/(?P<name>[^/]+))?(?P<log>/log)?$")


class Refused(Exception):
    """A request that a server refuses, with its code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Cluster:
    """Jobs, their pods and secrets.

    Args:
        environment: What is set in every container, as the image sets it.

    Attributes:
        jobs: What was asked for, by name, in the order in which it came; jobs that were removed stay here.
        asked: Every kind of request: API group, resource and verb, as the rules of a role name them.
        secrets: Names of those that were not removed.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: set[tuple[str, str, str]] = set()
        self.secrets: set[str] = set()
        self.pods: dict[str, subprocess.Popen[bytes]] = {}
        self.removed: set[str] = set()
        self._folders = ExitStack()
        self._logs: dict[str, Path] = {}

    def create_job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Start a job's pod."""
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        _check(pod, container)
        name = job["metadata"]["name"]
        self.jobs[name] = job
        # A volume of the pod's own, empty; its log lies elsewhere.
        folder = Path(self._folders.enter_context(tempfile.TemporaryDirectory()))
        self._logs[name] = folder / "log"
        (folder / "work").mkdir()
        with self._logs[name].open("wb") as log:
            # A pod's process is the first of a tree that ends with it.
            self.pods[name] = subprocess.Popen(
                [*container["command"], *container["args"]],
                cwd=folder / "work",
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return job

    def end(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a pod, as a node that fails, a queue of higher standing or a deadline does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pods[name].pid, number)
        self.pods[name].wait()

    def status(self, name: str) -> dict[str, Any]:
        """A job with its status."""
        code = self._pod(name).poll()
        counts = {"active": 1} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}
        return self.jobs[name] | {"status": counts}

    def pod(self, name: str) -> dict[str, Any]:
        """A job's pod with its status."""
        code = self._pod(name).poll()
        exit_code = 128 - code if code is not None and code < 0 else code
        state: dict[str, Any] = {"running": {}} if code is None else {"terminated": {"exitCode": exit_code}}
        status = {"name": "snakemake", "state": state, "image": "", "imageID": "", "ready": code is None}
        return {
            "metadata": {"name": f"{name}-x"},
            "spec": self.jobs[name]["spec"]["template"]["spec"],
            "status": {"containerStatuses": [status | {"restartCount": 0}]},
        }

    def log(self, name: str, previous: bool) -> str:
        """What a pod wrote."""
        if previous:
            raise Refused(400, f'previous terminated container "snakemake" in pod "{name}" not found')
        return self._logs[name].read_text()

    def remove(self, name: str) -> None:
        """Remove a job or its pod, which ends it."""
        self.end(name)
        self.removed.add(name)

    def _pod(self, name: str) -> subprocess.Popen[bytes]:
        if name not in self.pods or name in self.removed:
            raise Refused(404, f'jobs.batch "{name}" not found')
        return self.pods[name]

    def close(self) -> None:
        """End everything."""
        for name in self.pods:
            self.end(name)
        self._folders.close()


def _check(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """As a server admits pods: devices have limits, and volumes that are mounted are there."""
    requests, limits = (container["resources"].get(key, {}) for key in ("requests", "limits"))
    for resource, amount in requests.items():
        if "/" in resource and limits.get(resource) != amount:
            raise Refused(422, f"Limit must be set for non overcommitable resources: {resource}")
    volumes = {volume["name"] for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        if mount["name"] not in volumes:
            raise Refused(422, f"volumeMounts: not found: {mount['name']}")


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open, as those of a real server

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            document = json.loads(self.rfile.read(length) or b"{}")
            try:
                with lock:
                    answer, code = self._act(document), 201 if self.command == "POST" else 200
            except Refused as error:
                code = error.code
                answer = {"kind": "Status", "status": "Failure", "message": str(error), "code": code}
            body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 (http.server's names)

        def _act(self, document: dict[str, Any]) -> Any:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            verb = {"GET": "get", "POST": "create", "DELETE": "delete"}[self.command]
            if found := JOBS.match(url.path):
                cluster.asked.add(("batch", "jobs" + (found["status"] or ""), verb))
                if verb == "create":
                    return cluster.create_job(document)
                if verb == "get":
                    return cluster.status(found["name"])
                cluster.remove(found["name"])
                return {"kind": "Status", "status": "Success"}
            found = CORE.match(url.path)
            if found is None:
                raise Refused(404, self.path)
            if verb == "get" and found["name"] is None:
                verb = "list"
            cluster.asked.add(("", found["kind"] + (found["log"] or ""), verb))
            if found["kind"] == "secrets":
                if verb == "create":
                    cluster.secrets.add(document["metadata"]["name"])
                    return document
                cluster.secrets.remove(found["name"])
                return {"kind": "Status", "status": "Success"}
            if verb == "list":
                job = query["labelSelector"].removeprefix("job-name=")
                return {"kind": "PodList", "items": [] if job in cluster.removed else [cluster.pod(job)]}
            job = found["name"].removesuffix("-x")
            if found["log"]:
                return cluster.log(job, query.get("previous") == "true")
            cluster.end(job)
            return {"metadata": {"name": found["name"]}}

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


class _Server(ThreadingHTTPServer):
    request_queue_size = 64


@contextmanager
def running(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Cluster, Path]]:
    """Start a server; yields its cluster and a file for ``KUBECONFIG``."""
    cluster = Cluster(environment)
    with _Server(("127.0.0.1", 0), _handler(cluster)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            config = folder / "kubeconfig"
            address = f"http://127.0.0.1:{server.server_address[1]}"
            config.write_text(
                yaml.safe_dump(
                    {
                        "apiVersion": "v1",
                        "kind": "Config",
                        "current-context": "loopback",
                        "clusters": [{"name": "loopback", "cluster": {"server": address}}],
                        "users": [{"name": "nobody", "user": {}}],
                        "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "nobody"}}],
                    }
                )
            )
            yield cluster, config
        finally:
            server.shutdown()
            thread.join()
            cluster.close()
