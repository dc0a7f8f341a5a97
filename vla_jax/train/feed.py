"""What the loop needs from the data: batches on the devices, by their number."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jax.sharding import Mesh

from vla_jax.data.checks.gripper import warn_undecided
from vla_jax.data.loader import to_device, train_batches, validation_batches
from vla_jax.data.seen import Seen, seen_after
from vla_jax.data.source import open_source
from vla_jax.data.stream_source import StreamSource
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
        seen: number of training batches -> what they have shown of each data set.
    """

    train: Callable[[int], Iterator[Batch]]
    validation: Callable[[], Iterator[Batch]]
    names: list[str]
    metadata: Mapping[str, Any]
    tokenizer: bytes | None
    seen: Callable[[int], Sequence[Seen]] = lambda num_batches: ()


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
    if _decides(config.get("model", {})):
        warn_undecided(source.indexes)

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

    def seen(num_batches: int) -> list[Seen]:
        samples = num_batches * source.batch_size
        return seen_after(source, samples, hosts["num_hosts"])

    metadata = source.metadata()
    if isinstance(source, StreamSource):
        # Their order depends on it, so a resumed run must have as many.
        metadata["num_hosts"] = hosts["num_hosts"]
    return Feed(
        train=train,
        validation=validation,
        names=[index.spec.name for index in source.indexes],
        metadata=metadata,
        tokenizer=source.tokenizer.to_bytes(),
        seen=seen,
    )


def _decides(model: Mapping[str, Any]) -> bool:
    """Whether a head of the model has `gripper_dims`."""
    head = model.get("head", {})
    return any(part.get("gripper_dims") for part in (head, head.get("anchor", {})))


def require_validation(feed: Feed) -> None:
    """Finds out now, and not at the first evaluation, that nothing is held out."""
    try:
        feed.validation().close()
    except ValueError as error:
        raise ValueError(
            f"{error} Set train.eval_every to 0 to train without validation."
        ) from error
