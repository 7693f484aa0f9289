from vibe_mux_backend_azure import Azure

from muxcore.testing import check_backend


def test_it_passes_the_check() -> None:
    check_backend(Azure)
