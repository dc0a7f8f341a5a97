"""A tiny environment, agents that play it, and handlers for worker processes."""

import os
import signal
import time

import numpy as np


class FakeEnvironment:
    """A point on a line that must come within 0.1 of zero.

    The first pixel of every picture is the seed, the second the step, the third the
    camera's number. All look along z from one metre away: a meter covers two pixels.
    Task "die" kills its process at the third step, "raise" raises.
    """

    proprio_dim = 2
    action_dim = 2
    control_hz = 20.0
    grippers = (1,)
    demonstration = None
    stages = ()
    objects = ()

    def __init__(self, task, *, horizon=6, cameras=("primary", "wrist"), size=(4, 6)):
        self.task, self.horizon, self.cameras = task, horizon, cameras
        self.image_size = size
        self.instructions = (f"{task} one", f"{task} two")
        self.instruction = self.instructions[0]
        self.executed = []

    def reset(self, seed, *, render=True):
        self._seed, self._step = seed, 0
        self.position = np.random.default_rng(seed).uniform(0.5, 3)
        self.instruction = self.instructions[seed % 2]
        return self._observe(render)

    def step(self, action, *, render=True):
        native = self.native_action(action)
        self.executed.append(native)
        self._step += 1
        if self.task == "die" and self._step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.task == "raise" and self._step == 3:
            raise ValueError("the table fell over")
        self.position += native[0] / 2
        return self._observe(render), float(-self.position), abs(self.position) < 0.1

    def expert_action(self):
        return np.array([np.clip(-2 * self.position, -1, 1), 0.25], np.float32)

    def native_action(self, action):
        action = np.array(action, np.float32)
        action[1] = 1 - 2 * action[1]
        return np.clip(action, -1, 1)

    def camera_matrices(self, camera):
        assert camera in self.cameras
        intrinsics = np.array([[2.0, 0, 3], [0, 2, 2], [0, 0, 1]])
        extrinsics = np.eye(4)
        extrinsics[2, 3] = 1
        return intrinsics, extrinsics

    def frame(self, size):
        return np.full((size, size, 3), 40 * self._step, np.uint8)

    def close(self):
        pass

    def _observe(self, render):
        image = {}
        for number, camera in enumerate(self.cameras if render else ()):
            image[camera] = np.zeros((*self.image_size, 3), np.uint8)
            image[camera][0, :3, 0] = self._seed % 256, self._step, number
        proprio = np.array([self.position, self._step], np.float32)
        return {"image": image, "proprio": proprio}


class FakeAgent:
    """Plays as the expert does, checks what it is shown, notes how it is called."""

    cameras = ("primary", "wrist")
    image_size = (4, 6)
    point_cameras = ()

    def __init__(self, look_every=1, skill=lambda seed: True):
        self._look_every, self._skill = look_every, skill
        self._seeds, self._steps = {}, {}
        self.calls, self.told = [], []

    def reset(self, slot, seed):
        self._seeds[slot], self._steps[slot] = seed, 0

    def needs_image(self, slot):
        return self._steps[slot] % self._look_every == 0

    def act(self, slots, observations, instructions):
        self.calls.append(list(slots))
        self.told += instructions
        actions = []
        for slot, observation in zip(slots, observations, strict=True):
            seed, step = self._seeds[slot], self._steps[slot]
            assert observation["proprio"][1] == step
            if self.needs_image(slot):
                for number, camera in enumerate(self.cameras):
                    pixels = observation["image"][camera][0, :3, 0]
                    assert pixels.tolist() == [seed % 256, step, number]
            else:
                assert observation["image"] == {}
            self._steps[slot] += 1
            motion = np.clip(-2 * observation["proprio"][0], -1, 1)
            actions.append([motion if self._skill(seed) else 0.0, 1.0])
        return np.array(actions, np.float32)


class StagedEnvironment(FakeEnvironment):
    """The point is an object, as a camera sees it; within 1 of zero is stage one."""

    stages = ("near", "there")
    objects = ("point",)

    def step(self, action, *, render=True):
        observation, _, solved = super().step(action, render=render)
        reward = 2 if solved else int(abs(self.position) < 1)
        return observation, float(reward), solved

    def object_poses(self):
        return np.array([[self.position, 0, 0, 0, 0, 0, 1.0]])


class PointAgent(FakeAgent):
    """Has one attention point that lies on the object of `StagedEnvironment`."""

    point_cameras = ("primary",)

    def act(self, slots, observations, instructions):
        self._points = {}
        for slot, observation in zip(slots, observations, strict=True):
            # Pixel 3 + 2 * position of six; the center of the first is at 0.5.
            column = 3 + 2 * observation["proprio"][0]
            x = (column - 0.5) / 5 * 2 - 1
            self._points[slot] = np.array([[x, (2 - 0.5) / 3 * 2 - 1]])
        return super().act(slots, observations, instructions)

    def diagnostics(self, slot):
        return {"points": self._points[slot]}


class Echo:
    """Handler that replies with its process id and the request; sleeps on numbers."""

    def __call__(self, request):
        if isinstance(request, (int, float)):
            time.sleep(request)
        return os.getpid(), request

    def close(self):
        pass
