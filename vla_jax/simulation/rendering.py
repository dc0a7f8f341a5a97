"""Pictures of a MuJoCo model: renderers, depth, and the matrices of its cameras."""

from collections.abc import Sequence

import numpy as np

from vla_jax.simulation.gl import ensure_gl


def choose_backend(*, needed: bool) -> None:
    """Chooses OpenGL before MuJoCo is imported, also for environments to come.

    An environment without cameras must work where nothing can render.

    Raises:
        RuntimeError: nothing renders although it is `needed`.
    """
    try:
        ensure_gl(install=needed)
    except RuntimeError:
        if needed:
            raise


class Renderers:
    """Off-screen renderers of one model, one for each size, made when first used."""

    def __init__(self, model, *, cheap: bool, hidden_groups: Sequence[int] = ()):
        """`cheap` leaves out shadows, reflections and multisampling.

        Shapes of `hidden_groups` are not drawn, besides those that MuJoCo hides.
        """
        self._model, self._cheap = model, cheap
        self._hidden_groups = tuple(hidden_groups)
        self._renderers: dict[tuple[int, int], object] = {}

    def picture(self, data, camera: str, size: tuple[int, int]) -> np.ndarray:
        """What a camera sees, uint8 [h w 3]; `size` is height and width."""
        renderer = self._renderer(size)
        renderer.update_scene(data, camera=camera, scene_option=self._option())
        return renderer.render()

    def depth(self, data, camera: str, size: tuple[int, int]) -> np.ndarray:
        """Metres along the optical axis, float32 [h w]."""
        renderer = self._renderer(size)
        renderer.update_scene(data, camera=camera, scene_option=self._option())
        renderer.enable_depth_rendering()
        try:
            return renderer.render()
        finally:
            renderer.disable_depth_rendering()

    def close(self) -> None:
        """Frees the renderers; the next picture makes a new one."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers = {}

    def _option(self):
        import mujoco

        option = mujoco.MjvOption()
        option.geomgroup[list(self._hidden_groups)] = 0
        return option

    def _renderer(self, size: tuple[int, int]):
        if size not in self._renderers:
            self._renderers[size] = _make_renderer(self._model, size, self._cheap)
        return self._renderers[size]


def intrinsics(fovy: float, size: tuple[int, int]) -> np.ndarray:
    """Pinhole matrix [3, 3] in pixels; 0, 0 is the corner of the first pixel.

    Args:
        fovy: vertical field of view in degrees.
        size: height and width of the picture.
    """
    height, width = size
    focal = 0.5 * height / np.tan(np.radians(fovy) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def extrinsics(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Camera from world [4, 4]; the camera looks along +z, with x right and y down.

    Args:
        position: of MuJoCo's camera, metres, [3].
        rotation: of MuJoCo's camera [3, 3], which looks along -z with y up.
    """
    axes = rotation * np.array([1.0, -1.0, -1.0])
    matrix = np.eye(4)
    matrix[:3, :3] = axes.T
    matrix[:3, 3] = -axes.T @ position
    return matrix


def camera_matrices(
    model, data, name: str, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Present intrinsics [3, 3] and extrinsics [4, 4] of MuJoCo's camera `name`."""
    view = data.camera(name)
    return (
        intrinsics(float(model.camera(name).fovy[0]), size),
        extrinsics(view.xpos, view.xmat.reshape(3, 3)),
    )


def project(
    points: np.ndarray, intrinsics: np.ndarray, extrinsics: np.ndarray
) -> np.ndarray:
    """Pixels [..., 2], x before y, of points [..., 3] in metres of the world.

    A point beside the picture gets a pixel outside it, one behind the camera is NaN.
    """
    seen = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    pixels = seen @ intrinsics.T
    depth = pixels[..., 2:]
    safe = np.where(depth > 0, depth, 1.0)
    return np.where(depth > 0, pixels[..., :2] / safe, np.nan)


def _make_renderer(model, size: tuple[int, int], cheap: bool):
    import mujoco

    height, width = size
    if cheap:
        model.vis.quality.offsamples = 0
        model.light_castshadow[:] = 0
    model.vis.global_.offheight = max(height, 16)
    model.vis.global_.offwidth = max(width, 16)
    renderer = mujoco.Renderer(model, height, width)
    if cheap:
        # The floor's faint mirror image costs a second pass over the whole scene.
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    return renderer
