"""What a scripted expert may know of a LIBERO scene: true poses, shapes and joints."""

import numpy as np

from vla_jax.simulation.libero.geometry import Shape, shape

_HANDLE = 0.02  # metres within which boxes in front of a drawer belong to its handle


class Scene:
    """The present state of LIBERO's own environment."""

    def __init__(self, simulator):
        self._simulator = simulator
        self.model = simulator.sim.model._model
        self.data = simulator.sim.data._data

    @property
    def goals(self) -> list[list[str]]:
        """The goal as predicates, such as `["on", "bowl_1", "plate_1"]`."""
        return self._simulator.parsed_problem["goal_state"]

    def fulfilled(self, goals: list[list[str]]) -> bool:
        """Whether LIBERO takes all of these parts of a goal as reached."""
        return all(self._simulator._eval_predicate(goal) for goal in goals)

    @property
    def hand(self) -> np.ndarray:
        """The point between the fingers, metres, [3]."""
        return self.site("gripper0_grip_site")

    @property
    def hand_rotation(self) -> np.ndarray:
        """From the axes of the hand to the world, [3, 3]; it points along its z."""
        body = self._id("BODY", "robot0_right_hand")
        return self.data.xmat[body].reshape(3, 3).copy()

    def site(self, name: str) -> np.ndarray:
        """Position of a site, metres, [3]."""
        return self.data.site_xpos[self._id("SITE", name)].copy()

    def region(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Middle of a region and half its extent along the axes, metres, [3] each."""
        site = self._id("SITE", name)
        rotation = self.data.site_xmat[site].reshape(3, 3)
        return self.site(name), np.abs(rotation) @ self.model.site_size[site]

    def shape(self, name: str) -> Shape:
        """The boxes of an object, a fixture or a part of one."""
        body = self._id("BODY", f"{name}_main")
        return self.body(body if body >= 0 else self._id("BODY", name))

    def body(self, number: int) -> Shape:
        """The boxes of a body by its number."""
        return shape(self.model, self.data, number)

    def is_object(self, name: str) -> bool:
        """Whether a name stands for something that can be moved about."""
        return name in self._simulator.objects_dict

    def owner(self, region: str) -> str | None:
        """What a region belongs to; None for one that is an object itself."""
        for name, value in self._simulator.parsed_problem["regions"].items():
            # Regions are written with and without the name of their owner in front.
            if region in (name, f"{value['target']}_{name}"):
                return value["target"]
        return None

    def drawer(self, region: str) -> int | None:
        """The body of the drawer that a region is the inside of; None for others."""
        owner = self.owner(region)
        part = region.removeprefix(f"{owner}_").removesuffix("_region")
        body = self._id("BODY", f"{owner}_cabinet_{part}")
        return body if body >= 0 else None

    def opening(self, drawer: int) -> float:
        """How far a drawer is open, metres."""
        joint = self.model.body_jntadr[drawer]
        return float(abs(self.data.qpos[self.model.jnt_qposadr[joint]]))

    def handle(self, drawer: int) -> tuple[np.ndarray, np.ndarray]:
        """The middle of a drawer's handle [3] and the direction it opens in [3]."""
        joint = self.model.body_jntadr[drawer]
        low, high = self.model.jnt_range[joint]
        out = self.data.xaxis[joint] * (1 if abs(high) > abs(low) else -1)
        body = self.body(drawer)
        front = body.centers @ out
        bar = body.centers[front > front.max() - _HANDLE / 2]
        return bar.mean(0), out

    def obstacles(self, *names: str) -> list[Shape]:
        """Everything that stands around some objects."""
        simulator = self._simulator
        others = [*simulator.objects_dict, *simulator.fixtures_dict]
        return [
            self.shape(other)
            for other in others
            if other not in names and self._id("BODY", f"{other}_main") >= 0
        ]

    def _id(self, kind: str, name: str) -> int:
        import mujoco

        kind = getattr(mujoco.mjtObj, f"mjOBJ_{kind}")
        return mujoco.mj_name2id(self.model, kind, name)
