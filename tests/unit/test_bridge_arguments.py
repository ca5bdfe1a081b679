"""arguments.py: the bridge's command line."""

from __future__ import annotations

import pytest
from polypod_bridge.arguments import parse
from polypod_core.errors import UserError


def test_one_thing_is_asked_for_at_a_time() -> None:
    assert parse(["--config", "-"]).config == "-"
    assert parse(["--stored-log=s3://b/l", "--pod=p", "--skip-lines=3"]).skip_lines == 3
    options = parse(["--workload", "w.json", "--execution-api-url", "http://a/", "--routing", "r.yaml"])
    assert (options.workload, options.log_format, options.log_file) == ("w.json", "json", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of the arguments --config --workload --stored-log is required"),
        (["--config", "a", "--workload", "b"], "not allowed with argument --config"),
        (["--config"], "expected one argument"),
        (["--conf", "a"], "required"),
        (["--config", "a", "extra"], "unrecognized arguments: extra"),
        (["--workload", "w", "--routing", "r"], "--workload needs --execution-api-url and --routing"),
        (["--workload", "w", "--execution-api-url", "u"], "--workload needs --execution-api-url and --routing"),
        (["--stored-log", "u", "--skip-lines", "-1"], "'-1' is not a number of lines"),
        (["--stored-log", "u", "--skip-lines", "٣"], "is not a number of lines"),
        (["--config", "a", "--log-format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_a_wrong_argument_is_named_with_the_usage(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(arguments)
    assert said in refused.value.message
    assert "usage: polypod-bridge" in refused.value.message
