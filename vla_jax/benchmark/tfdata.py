"""What the loader is compared with: tf.data and dlimp pipelines for the same batches.

`tfdata_batches` is plain tf.data as a careful user writes it: shards are interleaved,
records parsed for the features that are needed and no others, action chunks gathered
once per episode, steps shuffled while their images are still encoded, images decoded by
as many threads as the loader has, and map and batch fused, so that a decoded image is
copied once. `dlimp_batches` is the same through dlimp's trajectories, which is how octo
and openvla read.

Both do less than the loader: they neither standardize nor normalize nor tokenize, and
they shuffle within a buffer where the loader shuffles the whole data set. Pixels are
the same, as they decode by the method that the loader uses. Only a process that
measures TensorFlow calls these functions; they import it when they are called.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vla_jax.data.rlds import RLDSFolder, open_rlds

_ACTION = "steps/action"
_OPEN_SHARDS = 4
_ORDER = 0  # seed of what is shuffled


class Pipeline(NamedTuple):
    """What a pipeline makes.

    Attributes:
        path: version folder of the data set.
        cameras: standard name to feature.
        window, chunk: frames and actions of a sample.
        batch_size: samples of a batch.
        num_threads: threads of tf.data's pool, and calls in parallel.
        prefetch: batches made ahead.
        shuffle: steps that are shuffled together.
    """

    path: str
    cameras: Mapping[str, str]
    window: int
    chunk: int
    batch_size: int
    num_threads: int
    prefetch: int
    shuffle: int


def tfdata_batches(pipeline: Pipeline) -> Iterator[dict]:
    """Endless batches of plain tf.data: `image`, camera to uint8 [b t h w 3], and the
    numbers of the data set under their own names, `steps/action` as [b c a]."""
    import tensorflow as tf

    folder = open_rlds(pipeline.path)
    threads, numbers = pipeline.num_threads, _numbers(folder)
    shapes = dict.fromkeys(pipeline.cameras.values(), ())
    shapes |= {key: folder.features[key].shape for key in numbers}
    wanted = {
        key: tf.io.FixedLenSequenceFeature(
            shape, tf.float32 if key in numbers else tf.string, allow_missing=True
        )
        for key, shape in shapes.items()
    }

    def episode(record):
        return _samples(tf.io.parse_single_example(record, wanted), pipeline)

    paths = [shard.path for shard in folder.splits["train"]]
    dataset = tf.data.Dataset.from_tensor_slices(paths)
    dataset = dataset.shuffle(len(paths), seed=_ORDER).repeat()
    dataset = dataset.interleave(
        tf.data.TFRecordDataset, cycle_length=_OPEN_SHARDS, num_parallel_calls=threads
    )
    dataset = dataset.map(episode, num_parallel_calls=threads)
    dataset = dataset.interleave(
        tf.data.Dataset.from_tensor_slices,
        cycle_length=_OPEN_SHARDS,
        num_parallel_calls=threads,
    )
    dataset = dataset.shuffle(pipeline.shuffle, seed=_ORDER)
    dataset = dataset.map(_decoder(pipeline), num_parallel_calls=threads)
    dataset = dataset.batch(pipeline.batch_size, drop_remainder=True)
    dataset = dataset.prefetch(pipeline.prefetch)
    return iter(dataset.with_options(_options(threads)).as_numpy_iterator())


def dlimp_batches(pipeline: Pipeline) -> Iterator[dict]:
    """Endless batches through dlimp, as `tfdata_batches`."""
    import dlimp
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder, threads = open_rlds(pipeline.path), pipeline.num_threads
    keys = (*pipeline.cameras.values(), *_numbers(folder))
    tf.random.set_seed(_ORDER)

    def chunked(trajectory):
        fields = {key: _field(trajectory, key) for key in keys}
        return _samples(fields, pipeline)

    builder = tfds.builder_from_directory(pipeline.path)
    dataset = dlimp.DLataset.from_rlds(
        builder, "train", shuffle=True, num_parallel_reads=_OPEN_SHARDS
    )
    dataset = dataset.repeat().traj_map(chunked, num_parallel_calls=threads)
    dataset = dataset.flatten(num_parallel_calls=_OPEN_SHARDS)
    dataset = dataset.shuffle(pipeline.shuffle, seed=_ORDER)
    dataset = dataset.frame_map(_decoder(pipeline), num_parallel_calls=threads)
    dataset = dataset.batch(pipeline.batch_size, drop_remainder=True)
    dataset = dataset.prefetch(pipeline.prefetch)
    return iter(dataset.with_options(_options(threads)).as_numpy_iterator())


def _numbers(folder: RLDSFolder) -> list[str]:
    """Features of steps that are plain float32 numbers."""
    return [
        key
        for key, feature in folder.features.items()
        if key.startswith("steps/")
        and (feature.kind, feature.dtype, feature.encoding)
        == ("tensor", "float32", "none")
    ]


def _field(trajectory: Mapping, key: str):
    """A feature of a trajectory of dlimp, which nests them without "steps"."""
    for name in key.split("/")[1:]:
        trajectory = trajectory[name]
    return trajectory


def _samples(fields: Mapping, pipeline: Pipeline) -> dict:
    """Samples of one episode, time first, with their images encoded."""
    import tensorflow as tf

    fields = dict(fields)
    cameras = pipeline.cameras.values()
    length = tf.shape(fields[next(iter(cameras))])[0]
    step = tf.range(length)[:, None]
    if pipeline.window > 1:  # else the copies of a gather would be needless
        past = tf.maximum(step + tf.range(1 - pipeline.window, 1), 0)
        fields |= {key: tf.gather(fields[key], past) for key in cameras}
    if _ACTION in fields:
        future = step + tf.range(pipeline.chunk)
        fields["action_mask"] = future < length
        future = tf.minimum(future, length - 1)
        fields[_ACTION] = tf.gather(fields[_ACTION], future)
    return fields


def _decoder(pipeline: Pipeline):
    """A function that decodes the images of one sample."""
    import tensorflow as tf

    def decode_one(data):
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    def decode(sample):
        sample, image = dict(sample), {}
        for camera, key in pipeline.cameras.items():
            data = sample.pop(key)
            if pipeline.window == 1:
                image[camera] = decode_one(data)[None]
            else:
                frames = [decode_one(data[t]) for t in range(pipeline.window)]
                image[camera] = tf.stack(frames)
        return {"image": image, **sample}

    return decode


def _options(num_threads: int):
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False  # the number of threads is given
    options.deterministic = False  # nothing has to wait for its turn
    options.experimental_optimization.map_and_batch_fusion = True
    options.threading.private_threadpool_size = num_threads
    options.threading.max_intra_op_parallelism = 1
    return options
