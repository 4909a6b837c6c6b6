"""The service against its own OpenAPI schema: generated requests, valid and not, and what they get."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.serve.app import make_app
from pipeline.serve.limits import Limits
from tests.pipeline.locate.test_locate import recipe, save_localiser
from tests.support.uploads import serving

EXAMPLES = 10
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def test_responses_are_as_the_schema_says(tmp_path):
    localiser = PhotoLocaliser.load(save_localiser(tmp_path / "localiser", recipe()))
    with serving(make_app(localiser, Limits(100_000, 4, 100_000, 20.0))) as port:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) == 4
        for operation in operations:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                phases=(Phase.explicit, Phase.generate),
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def run(case):
                case.call_and_validate(checks=CHECKS)

            run()
