# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The ROS 2 node: a lifecycle node around one pipeline and any number of cameras.

It only wires things together. Receiving is in `subscriptions`, the thread that works in `worker`,
publishing in `outputs`; networks are the pipeline's business and unknown here.
"""

from __future__ import annotations

import gc
import os
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos_overriding_options import QoSOverridingOptions

from ood_perception.host_cpu import in_own_thread
from ood_perception.ros import diagnostics, memory, parameters, qos
from ood_perception.ros.camera_stream import CameraStream, Mailbox
from ood_perception.ros.outputs import CameraOutputs
from ood_perception.ros.reporting import Reporter
from ood_perception.ros.services import Services
from ood_perception.ros.subscriptions import (
    CameraSubscriptions,
    mismatches,
    output_events,
    type_name,
)
from ood_perception.ros.worker import Worker

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
FAILURES_BEFORE_FALLBACK = 3


class OodNode(LifecycleNode):
    """
    Find unknown objects in the images of one or many cameras.

    configure loads the pipeline and warms it up, activate subscribes, deactivate unsubscribes
    (and with `release_on_deactivate` gives the networks back), cleanup gives everything back.

    Attributes:
        settings: values of the parameters.
        report: logs a line, throttled.
        worker: the thread that processes frames, while configured.
        enabled: False discards frames (service ~/enable).

    """

    def __init__(self, name: str = 'ood', **options: Any) -> None:
        super().__init__(name, **options)
        self.settings = parameters.declare(self)
        self.report = Reporter(self.get_logger())
        self.worker: Worker | None = None
        self._enabled = True
        self._state = 'unconfigured'
        self._error = ''
        self._outputs_suspect = False
        self._warnings: list[str] = []
        self._subscriptions_of: dict[str, CameraSubscriptions] = {}
        self._outputs: dict[str, CameraOutputs] = {}
        self._streams: list[CameraStream] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock: with use_sim_time and a paused bag, diagnostics must go on.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0, self._every_second, clock=self._steady)
        self._services_of_node = Services(self)
        self.add_on_set_parameters_callback(self._check_parameters)
        if hasattr(self, 'add_post_set_parameters_callback'):
            self.add_post_set_parameters_callback(lambda changed: self._apply_parameters())

    # ---- lifecycle -------------------------------------------------------------------------

    def start(self) -> bool:
        """Configure and activate without a manager; False when that failed."""
        if self.trigger_configure() != SUCCESS:
            return False
        return self.trigger_activate() == SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Build streams, topics and the pipeline; FAILURE with a log line when one cannot be."""
        self._error = ''
        try:
            self.settings = parameters.read(self)
            parameters.check(self.settings)
            self._streams = [CameraStream(name) for name in self.settings.camera_names()]
            for stream in self._streams:
                if stream.name:
                    parameters.declare_camera(self, stream.name)
                camera = parameters.read_camera(self, stream.name, self.settings)
                stream.max_rate = camera.max_rate
            pipeline = in_own_thread(self._load)
            profile = qos.profile(self.settings.output_qos)
            options = {
                'event_callbacks': output_events(self._suspect_outputs),
                'qos_overriding_options': QoSOverridingOptions.with_default_policies(),
            }
            self._outputs = {
                s.name: CameraOutputs(self, s.name, self.settings, profile, options)
                for s in self._streams
            }
        except Exception as error:
            self._fail(f'cannot configure: {_reason(error)}')
            self._release()
            return FAILURE
        self.worker = Worker(Mailbox(self._streams), self._outputs, self.settings, self.report)
        self.worker.pipeline = pipeline
        self.worker.enabled = self._enabled
        self.worker.on_failures = self._fall_back
        self.worker.start()
        self._state = 'inactive'
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe; load the pipeline first if it was given back."""
        assert self.worker is not None
        try:
            if self.worker.pipeline is None:
                self.worker.pipeline = in_own_thread(self._load)
            done = super().on_activate(state)
            for stream in self._streams:
                camera = parameters.read_camera(self, stream.name, self.settings)
                self._subscriptions_of[stream.name] = CameraSubscriptions(
                    self, stream, self.worker.mailbox, self.settings, camera
                )
        except Exception as error:
            self._fail(f'cannot activate: {_reason(error)}')
            self._unsubscribe()
            return FAILURE
        self._state = 'active'
        topics = ', '.join(s.topic for s in self._subscriptions_of.values())
        self.get_logger().info(f'active; reading {topics}')
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; give the pipeline back if the parameter says so."""
        self._unsubscribe()
        assert self.worker is not None
        self.worker.mailbox.clear()
        if self.settings.release_on_deactivate:
            with self.worker.lock:
                self._close_pipeline()
        self._state = 'inactive'
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back topics, pipeline and device memory."""
        self._release()
        self._state = 'unconfigured'
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop for good."""
        self._release()
        self._state = 'finalized'
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured, from where it can be configured again."""
        self._release()
        self._state = 'unconfigured'
        return SUCCESS

    def stop(self) -> None:
        """Release everything at the end of the process, whatever the state."""
        self._release()

    def _load(self) -> Any:
        """Build the pipeline and warm it up. Raises what the pipeline raises."""
        # Imported late: torch takes seconds, and a wrong parameter should fail before that.
        import torch

        from ood_perception.pipeline import Pipeline
        from ood_perception.scores import learns

        settings, started = self.settings, time.monotonic()
        self.report.check_installation(settings.profile)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.get_logger().info(f'loading profile {settings.profile!r}')
        pipeline = Pipeline.from_profile(settings.profile, settings.device, settings.engine)
        if settings.memory_file and learns(pipeline.score):
            path = os.path.expanduser(settings.memory_file)
            if os.path.exists(path):
                pipeline.score.load(path)
        width, height = settings.warm_up_size
        pipeline.warm_up([(height, width)])
        seconds = time.monotonic() - started
        self.get_logger().info(f'{settings.profile!r} runs on {pipeline.device} ({seconds:.1f} s)')
        return pipeline

    def _unsubscribe(self) -> None:
        for subscriptions in self._subscriptions_of.values():
            subscriptions.destroy()
        self._subscriptions_of.clear()

    def _close_pipeline(self) -> None:
        assert self.worker is not None
        pipeline, self.worker.pipeline = self.worker.pipeline, None
        if pipeline is not None:
            pipeline.close()
        gc.collect()

    def _release(self) -> None:
        self._unsubscribe()
        if self.worker is not None:
            if not self.worker.stop():
                self.get_logger().warn('the worker is still busy with a frame')
            self._close_pipeline()
            self.worker = None
        for outputs in self._outputs.values():
            outputs.destroy()
        self._outputs.clear()
        self._streams = []

    def _fall_back(self, error: Exception) -> None:
        """After repeated failures, rebuild the pipeline one step simpler; runs in the worker."""
        worker = self.worker
        if worker is None or worker.failures < FAILURES_BEFORE_FALLBACK:
            return
        settings, device = self.settings, str(worker.pipeline.device)
        if settings.engine != 'eager':
            settings.engine = 'eager'
        elif device != 'cpu':
            settings.device = 'cpu'
        else:
            return
        worker.failures = 0
        text = f'pipeline keeps failing ({_reason(error)}); '
        text += f'falling back to engine {settings.engine} on {settings.device}'
        self._warnings.append(text)
        self.report('error', text)
        self._close_pipeline()
        worker.pipeline = self._load()

    # ---- parameters ------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether the lifecycle state is active."""
        return self._state == 'active'

    @property
    def enabled(self) -> bool:
        """Whether frames are processed."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value
        if self.worker is not None:
            self.worker.enabled = value

    def parameter_values(self) -> dict[str, Any]:
        """Values of all parameters by name."""
        names = sorted(self._parameters)
        return {p.name: parameters.plain(p.value) for p in self.get_parameters(names)}

    def _check_parameters(self, changes: list[Any]) -> SetParametersResult:
        verdict = parameters.check_changes(changes, self.worker is not None)
        humble = not hasattr(self, 'add_post_set_parameters_callback')
        if verdict.successful and humble and self.executor is not None:
            # It has no callback for afterwards.
            self.executor.create_task(self._apply_parameters)
        return verdict

    def _apply_parameters(self) -> None:
        settings = parameters.read(self)
        worker = self.worker
        if worker is None:
            self.settings = settings
            return
        with worker.lock:
            # What a fallback has changed stays changed until the next configure.
            settings.engine, settings.device = self.settings.engine, self.settings.device
            self.settings = worker.settings = settings
            for stream in self._streams:
                camera = parameters.read_camera(self, stream.name, settings)
                stream.max_rate = camera.max_rate
            for outputs in self._outputs.values():
                outputs.set_score(settings.publish_score)

    # ---- what people see -------------------------------------------------------------------

    def _suspect_outputs(self) -> None:
        # The graph learns the other node's name a moment after the event.
        self._outputs_suspect = True

    def check_inputs(self) -> None:
        """Look for publishers that cannot reach us."""
        for stream in self._streams:
            subscriptions = self._subscriptions_of.get(stream.name)
            stream.trouble = subscriptions.trouble() if subscriptions else ''
            if stream.trouble:
                self.report('error', stream.trouble)

    def check_outputs(self) -> None:
        """Look for subscribers that we cannot reach."""
        for outputs in self._outputs.values():
            for publisher in outputs.publishers:
                ends = self.get_subscriptions_info_by_topic(publisher.topic_name)
                kind, own = type_name(publisher.msg_type), publisher.qos_profile
                for text in mismatches(ends, publisher.topic_name, kind, own, False):
                    self.report('warn', text)

    def _every_second(self) -> None:
        try:
            self.check_inputs()
            if self._outputs_suspect:
                self._outputs_suspect = False
                self.check_outputs()
            self._diagnostics.publish(self._diagnose())
        except Exception as error:
            # A timer that raises would end the executor.
            self.report('error', f'diagnostics: {_reason(error)}')

    def _diagnose(self) -> DiagnosticArray:
        pipeline = self.worker.pipeline if self.worker is not None else None
        values: dict[str, Any] = {
            'profile': self.settings.profile,
            'engine': self.settings.engine,
            'enabled': self._enabled,
            'transport_profile': os.environ.get(memory.profile_variable(), ''),
        }
        warnings = list(self._warnings)
        if pipeline is not None:
            values |= diagnostics.device_values(pipeline.device)
            warnings += pipeline.notes[-1:]
        if not self._enabled:
            warnings.append('disabled by ~/enable')
        name = self.get_name()
        statuses = [diagnostics.node_status(name, self._state, self._error, warnings, values)]
        for stream in self._streams:
            subscriptions = self._subscriptions_of.get(stream.name)
            topic = subscriptions.topic if subscriptions else ''
            statuses.append(
                diagnostics.camera_status(
                    name, stream, topic, self.active, self.settings.stale_after
                )
            )
        return diagnostics.array(self.get_clock().now().to_msg(), statuses)

    def _fail(self, text: str) -> None:
        self._error = text
        self.get_logger().error(text)


def _reason(error: Exception) -> str:
    text = str(error).strip() or 'no further text'
    return text if isinstance(error, ValueError) else f'{type(error).__name__}: {text}'
