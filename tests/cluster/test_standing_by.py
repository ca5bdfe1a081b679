"""leader.py and tls.py with a real API server: who leads, and the certificates that operators share."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web
from polypod_operator.kube import leader as leader_module
from polypod_operator.kube.api import KubernetesApi
from polypod_operator.kube.leader import Leader
from polypod_operator.serve.outcomes import serve
from polypod_operator.serve.tls import Tls, TlsSettings
from support.waiting import until

from cluster.api import Api

pytestmark = pytest.mark.needs("api-server")


def play(api: Api, scenario: Callable[[KubernetesApi], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        session = KubernetesApi(api.connection())
        await session.open()
        try:
            await asyncio.wait_for(scenario(session), 120)
        finally:
            await session.close()

    asyncio.run(run())


@pytest.fixture
def lease(api: Api) -> tuple[str, str]:
    name = f"lease-{secrets.token_hex(3)}"
    document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    assert api.create(document).returncode == 0
    return "default", name


def test_one_leads_and_hands_over_when_it_ends(api: Api, lease: tuple[str, str]) -> None:
    async def scenario(session: KubernetesApi) -> None:
        first, second = (Leader(session, lease, name, lambda: None) for name in ("first", "second"))
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        keeping = asyncio.create_task(first.keep())
        # for longer than a lease that is not renewed
        await asyncio.sleep(leader_module.DURATION + 3)
        assert (first.leading, second.leading) == (True, False)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await first.release()
        await asyncio.wait_for(waiting, 5)
        assert (first.leading, second.leading) == (False, True)

    play(api, scenario)


def test_it_hands_over_although_its_last_renewal_was_not_heard_of(api: Api, lease: tuple[str, str]) -> None:
    async def scenario(session: KubernetesApi) -> None:
        first, second = (Leader(session, lease, name, lambda: None) for name in ("first", "second"))
        await first.acquire()
        # as a renewal does whose answer did not arrive: the lease is ours, and newer than we know
        change = '{"spec": {"renewTime": "2026-11-21T00:00:00.000000Z"}}'
        done = await asyncio.to_thread(api.kubectl, "patch", "lease", lease[1], "--type=merge", "-p", change)
        assert done.returncode == 0
        await first.release()
        await asyncio.wait_for(second.acquire(), 5)
        assert second.leading

    play(api, scenario)


def test_a_leader_that_is_silent_is_replaced_and_pauses_before_that(api: Api, lease: tuple[str, str]) -> None:
    async def scenario(session: KubernetesApi) -> None:
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()
        broken = KubernetesApi(api.connection())
        await broken.open()
        first = Leader(broken, lease, "first", lost.set)
        second = Leader(session, lease, "second", lambda: None)
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(3)
        # cut off from the API server
        server, broken._server = broken._server, "https://127.0.0.1:1"
        cut = loop.time()
        await until(lambda: broken.paused or second.leading)
        assert broken.paused, "it went on when another one led"
        call = asyncio.create_task(broken.call("GET", "/version"))
        await asyncio.wait_for(waiting, 60)
        assert loop.time() - cut < 15
        # what it wanted to do is not done when the API server is back, as another one leads
        broken._server = server
        await asyncio.wait_for(lost.wait(), 10)
        await keeping
        assert broken.paused
        assert not call.done()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await broken.close()

    play(api, scenario)


def test_a_leader_goes_on_after_an_outage_in_which_nobody_else_has_led(api: Api, lease: tuple[str, str]) -> None:
    async def scenario(session: KubernetesApi) -> None:
        loop = asyncio.get_running_loop()
        lost: list[bool] = []
        leader = Leader(session, lease, "first", lambda: lost.append(True))
        await leader.acquire()
        keeping = asyncio.create_task(leader.keep())
        server, session._server = session._server, "https://127.0.0.1:1"
        await until(lambda: session.paused)
        assert leader.leading, "nobody else leads"
        began = loop.time()
        await asyncio.sleep(leader_module.DURATION)
        waiting = asyncio.create_task(session.call("GET", "/version"))
        session._server = server
        await asyncio.wait_for(waiting, 30)
        assert not session.paused
        assert loop.time() - began > leader_module.DURATION
        await asyncio.sleep(leader_module.GIVE_UP + 1)
        assert not session.paused, "it renews as before"
        assert lost == []
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    play(api, scenario)


def test_a_pause_breaks_off_what_is_under_way(api: Api) -> None:
    async def scenario(session: KubernetesApi) -> None:
        done: list[int] = []

        async def slow(request: web.Request) -> web.Response:
            done.append(1)
            await asyncio.sleep(1.0 if len(done) == 1 else 0.0)
            return web.json_response({"number": len(done)})

        application = web.Application()
        application.router.add_get("/slow", slow)
        server = await serve(application, "127.0.0.1:0")
        real, session._server = session._server, f"http://127.0.0.1:{server.addresses[0][1]}"
        call = asyncio.create_task(session.call("GET", "/slow"))
        await until(lambda: done)
        session.pause()
        assert (await session.once("GET", "/slow")) == {"number": 2}
        await asyncio.sleep(2.0)
        assert not call.done()
        assert len(done) == 2, "nothing goes out during a pause but what is urgent"
        session.resume()
        assert await asyncio.wait_for(call, 10) == {"number": 3}
        session._server = real
        await server.cleanup()

    play(api, scenario)


def test_a_leader_whose_lease_was_taken_ends_at_once(api: Api, lease: tuple[str, str]) -> None:
    async def scenario(session: KubernetesApi) -> None:
        lost = asyncio.Event()
        first = Leader(session, lease, "first", lost.set)
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        change = '{"spec": {"holderIdentity": "somebody"}}'
        done = await asyncio.to_thread(api.kubectl, "patch", "lease", lease[1], "--type=merge", "-p", change)
        assert done.returncode == 0
        await asyncio.wait_for(lost.wait(), 10)
        await keeping

    play(api, scenario)


def test_a_lease_that_is_deleted_is_created_again_and_leads_nobody_else(api: Api, lease: tuple[str, str]) -> None:
    async def scenario(session: KubernetesApi) -> None:
        lost = asyncio.Event()
        first, second = Leader(session, lease, "first", lost.set), Leader(session, lease, "second", lambda: None)
        await first.acquire()
        keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
        await asyncio.sleep(leader_module.RETRY + 1)
        done = await asyncio.to_thread(api.kubectl, "delete", "lease", lease[1])
        assert done.returncode == 0
        await asyncio.sleep(leader_module.DURATION + 3)
        assert (first.leading, second.leading, session.paused, lost.is_set()) == (True, False, False, False)
        found = await session.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{lease[0]}/leases/{lease[1]}")
        assert found["spec"]["holderIdentity"] == "first"
        for task in (keeping, waiting):
            task.cancel()
        await asyncio.gather(keeping, waiting, return_exceptions=True)

    play(api, scenario)


def test_certificates_are_made_shared_and_taken_over_while_connections_come(api: Api) -> None:
    mark = secrets.token_hex(3)
    for name in (f"tls-{mark}", f"authority-{mark}"):
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        assert api.create(document).returncode == 0

    async def scenario(session: KubernetesApi) -> None:
        trusted: list[str] = []
        seen: list[str] = []
        names = ("polypod-operator.default.svc",)
        settings = TlsSettings("default", f"tls-{mark}", f"authority-{mark}", names)
        leads = Tls(session, settings, lambda: True, trusted.append)
        stands_by = Tls(session, settings, lambda: False, seen.append)
        await stands_by.look()
        assert not stands_by.ready.is_set(), "there is nothing yet"
        await leads.look()
        await stands_by.look()
        assert leads.ready.is_set()
        assert trusted == seen != []
        version = await versions(session)
        await leads.look()
        assert await versions(session) == version, "a good certificate was written again"
        assert len(trusted) == 1

        application = web.Application()
        server = await serve(application, "127.0.0.1:0", stands_by.certificate.context)
        port = server.addresses[0][1]
        client = ssl.create_default_context(cadata=seen[0])
        first = await shown(port, client, names[0])
        # another name: a new certificate by the same authority, which running servers take over
        more = TlsSettings("default", f"tls-{mark}", f"authority-{mark}", (*names, "more.default.svc"))
        await Tls(session, more, lambda: True, lambda _: None).look()
        await stands_by.look()
        second = await shown(port, client, "more.default.svc")
        assert first != second
        await server.cleanup()

    async def versions(session: KubernetesApi) -> list[str]:
        paths = [f"/api/v1/namespaces/default/secrets/{name}-{mark}" for name in ("tls", "authority")]
        return [(await session.call("GET", path))["metadata"]["resourceVersion"] for path in paths]

    async def shown(port: int, client: ssl.SSLContext, name: str) -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    play(api, scenario)
