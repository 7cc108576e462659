"""One Ray cluster of several nodes for all tests of this folder; each says how many it needs."""

from collections.abc import Iterator

import pytest

from tests.cluster.ray_nodes import RayCluster, ray_cluster

SECRET = "known-to-the-head-only"  # part of the URL of its database


@pytest.fixture(scope="session")
def head_storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database that only the head of the cluster knows."""
    return f"sqlite:///{tmp_path_factory.mktemp(SECRET) / 'head.db'}"


@pytest.fixture(scope="session")
def _head(head_storage: str) -> Iterator[RayCluster]:
    with ray_cluster(S3SEARCH_STORAGE=head_storage) as cluster:
        yield cluster


@pytest.fixture
def cluster(_head: RayCluster) -> Iterator[RayCluster]:
    """Its nodes are those that the test before has left: `resize` first."""
    yield _head
    _head.tidy()
