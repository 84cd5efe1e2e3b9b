"""Tasks on the wire: SEP-2663's shapes, as its conformance scenarios ask for them."""

from __future__ import annotations

import pytest

from interposer.errors import BadMessage
from interposer.wire import tasks


def test_task_is_flat_and_its_times_are_whole_milliseconds() -> None:
    """No wrapper, none of the older revision's names, dates of ISO 8601."""
    found = tasks.task(
        "t", tasks.Status.WORKING, created_at=0.5, updated_at=1700000000, ttl_ms=5, poll_ms=2000, said="waits"
    )
    assert found == {
        "taskId": "t",
        "status": "working",
        "statusMessage": "waits",
        "createdAt": "1970-01-01T00:00:00.500Z",
        "lastUpdatedAt": "2023-11-14T22:13:20.000Z",
        "ttlMs": 5,
        "pollIntervalMs": 2000,
    }


def test_missing_capability_names_the_extension() -> None:
    """-32021, with what was missing in the shape of capabilities."""
    missing = tasks.MissingCapability()
    assert missing.code == -32021
    assert missing.data == {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}


@pytest.mark.parametrize("capabilities", [{}, {"tasks": {}}, {"extensions": []}, {"extensions": {"other/tasks": {}}}])
def test_extension_is_declared_by_its_name(capabilities: object) -> None:
    """The slot of the revision before is not it."""
    assert not tasks.declared(capabilities)  # type: ignore[arg-type]
    assert tasks.declared({"extensions": {tasks.EXTENSION: {}}})


@pytest.mark.parametrize("params", [{}, {"taskId": 5}, {"taskId": None}])
def test_task_id_is_a_string(params: dict[str, object]) -> None:
    """Anything else is refused as invalid parameters."""
    with pytest.raises(BadMessage) as refused:
        tasks.task_id(params)
    assert refused.value.code == -32602
