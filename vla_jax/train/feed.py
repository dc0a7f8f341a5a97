"""What the loop needs from the data: batches on the devices, by their number."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jax.sharding import Mesh

from vla_jax.data.loader import to_device, train_batches, validation_batches
from vla_jax.data.source import open_source
from vla_jax.train.distributed import data_share
from vla_jax.train.sharding import batch_sharding
from vla_jax.types import Batch


class Feed(NamedTuple):
    """Batches and what they mean.

    Attributes:
        train: number of the first batch -> endless iterator of batches on the devices,
            with a `close`.
        validation: the same held-out batches at every call, with a `close`.
        names: data set names, in the order that `Batch.dataset` counts.
        metadata: JSON that is stored with the weights.
        tokenizer: serialized text model; None for a model that reads no text.
    """

    train: Callable[[int], Iterator[Batch]]
    validation: Callable[[], Iterator[Batch]]
    names: list[str]
    metadata: Mapping[str, Any]
    tokenizer: bytes | None


def make_feed(config: Mapping[str, Any], mesh: Mesh) -> Feed:
    """Opens the data of a config, indexing it where no index exists yet.

    Args:
        config: as `vla_jax.train.config.resolve` returns it.
        mesh: the devices that share a batch.

    Raises:
        ValueError: data that cannot be used, or a batch that the devices cannot share.
    """
    sharding = batch_sharding(
        mesh, config["data"]["batch_size"], config["train"]["accumulate"]
    )
    source = open_source(config["data"])

    host, num_hosts = data_share(sharding, config["data"]["batch_size"])
    hosts = dict(host=host, num_hosts=num_hosts)
    seed, num_batches = config["seed"], config["train"]["eval_batches"]

    def train(start: int) -> Iterator[Batch]:
        batches = train_batches(source, seed=seed, start_step=start, **hosts)
        return to_device(batches, sharding)

    def validation() -> Iterator[Batch]:
        batches = validation_batches(
            source, seed=seed, num_batches=num_batches, **hosts
        )
        return to_device(batches, sharding)

    return Feed(
        train=train,
        validation=validation,
        names=[index.spec.name for index in source.indexes],
        metadata=source.metadata(),
        tokenizer=source.tokenizer.to_bytes(),
    )


def require_validation(feed: Feed) -> None:
    """Finds out now, and not at the first evaluation, that nothing is held out."""
    try:
        feed.validation().close()
    except ValueError as error:
        raise ValueError(
            f"{error} Set train.eval_every to 0 to train without validation."
        ) from error
