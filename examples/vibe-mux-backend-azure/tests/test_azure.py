from vibe_mux_backend_azure import Azure

from muxcore.testing import check_backend


def test_it_keeps_what_a_backend_must() -> None:
    check_backend(Azure)
