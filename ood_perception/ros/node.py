# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The ROS 2 node: a lifecycle node around one pipeline and any number of cameras.

It only wires things together. Receiving is in `subscriptions`, the thread that works in `worker`,
publishing in `outputs`, what is wrong in `health`; networks are the pipeline's business and
unknown here.
"""

from __future__ import annotations

import os
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos_overriding_options import QoSOverridingOptions

from ood_perception.ros import diagnostics, gate, loading, parameters
from ood_perception.ros.camera_stream import CameraStream, Mailbox
from ood_perception.ros.fallback import Fallback, steps
from ood_perception.ros.health import Health, LoggingBridge, Reporter, describe
from ood_perception.ros.outputs import CameraOutputs
from ood_perception.ros.parameters import ParameterNode
from ood_perception.ros.services import Services
from ood_perception.ros.subscriptions import (
    CameraSubscriptions,
    mismatches,
    output_events,
    type_name,
)
from ood_perception.ros.watchdog import Watchdog
from ood_perception.ros.worker import Worker
from ood_perception.transport import profile_variables

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class OodNode(ParameterNode):
    """
    Find unknown objects in the images of one or many cameras.

    configure loads the pipeline, activate subscribes, deactivate unsubscribes (and with
    `release_on_deactivate` gives the networks back), cleanup gives everything back.
    """

    def __init__(self, name: str = 'ood', **options: Any) -> None:
        # Declared by rclpy, so that they can be listed; `parameters.declare` declares them anew.
        options.setdefault('automatically_declare_parameters_from_overrides', True)
        super().__init__(name, **options)
        self.report = Reporter(self.get_logger())
        self.health = Health(self.report)
        self._bridge = LoggingBridge(self.report)
        self._bridge.install()
        self._overrides = parameters.take_overrides(self)
        self.settings = parameters.declare(self, self._overrides)
        self.worker: Worker | None = None  # the thread that processes frames, while configured
        self.enabled = True  # False discards frames (service ~/enable)
        self._watchdog = Watchdog(self.health)
        self._check_outputs_soon = False
        self._learnt = loading.Learnt(self.report)
        self._inputs: dict[str, CameraSubscriptions] = {}
        self._outputs: dict[str, CameraOutputs] = {}
        self._streams: list[CameraStream] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock: with use_sim_time and a paused bag, diagnostics must go on.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0, self._every_second, clock=self._steady)
        self._gate_timer = self.create_timer(gate.HEARTBEAT, self._tell_states, clock=self._steady)
        self._own_services = Services(self)
        self.watch_parameters(lambda: self.worker is not None, self.apply_parameters)

    @property
    def state(self) -> str:
        """Label of the lifecycle state: unconfigured, inactive, active, configuring, ..."""
        # rclpy offers it to other nodes only, as a service.
        return str(self._state_machine.current_state[1])

    @property
    def active(self) -> bool:
        """Whether the lifecycle state is active."""
        return self.state == 'active'

    # ---- lifecycle -------------------------------------------------------------------------

    def start(self) -> bool:
        """Configure and activate without a manager; False when that failed."""
        if self.trigger_configure() != SUCCESS:
            return False
        return self.trigger_activate() == SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Build streams, topics and the pipeline; FAILURE with a log line when one cannot be."""
        self.health.forget()
        try:
            self.settings = parameters.read(self)
            parameters.check(self.settings)
            self._streams = [CameraStream(name) for name in self.settings.camera_names()]
            for stream in self._streams:
                self.health.forget(stream.name)
                if stream.name:
                    parameters.declare_camera(self, stream.name, self._overrides)
            self._set_rates()
            for line in parameters.unknown(self._overrides, self.settings.camera_names()):
                self.report('warn', line)
            options = {
                'event_callbacks': output_events(self._ask_for_output_check),
                'qos_overriding_options': QoSOverridingOptions.with_default_policies(),
            }
            names = [stream.name for stream in self._streams]
            self._outputs = {n: CameraOutputs(self, n, self.settings, options) for n in names}
            worker = self._load()
            if file := self.settings.alarms_file:
                identity = worker.call(lambda: worker.pipeline.identity)
                worker.publisher.alarms.read(file, identity)
            self.apply_budget()
        except Exception as error:
            self._fail('configure', error)
            self._release()
            return FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe; load the pipeline first if it was given back."""
        assert self.worker is not None
        try:
            if self.worker.pipeline is None:
                self._load()
            done = super().on_activate(state)
            for outputs in self._outputs.values():
                outputs.announce(self.worker.pipeline.profile.classes, self.settings)
            self._watchdog = Watchdog(self.health)
            for stream in self._streams:
                self.health.forget(stream.name, errors=False)
                camera = parameters.read_camera(self, stream.name, self.settings)
                self._inputs[stream.name] = CameraSubscriptions(
                    self, stream, self.worker.mailbox, self.settings, camera
                )
        except Exception as error:
            self._fail('activate', error)
            self._unsubscribe()
            super().on_deactivate(state)
            return FAILURE
        self.health.clear('configure')
        self.health.clear('activate')
        topics = ', '.join(s.topic for s in self._inputs.values())
        self.get_logger().info(f'active; reading {topics}')
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; give the pipeline back if the parameter says so."""
        self._unsubscribe()
        assert self.worker is not None
        self.worker.mailbox.clear()
        if self.settings.release_on_deactivate:
            self._learnt.keep(self.worker)
            self._stop_worker()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back topics, pipeline and device memory."""
        self._release()
        return SUCCESS

    # Stopped for good it needs none of that; after an error it can be configured again.
    on_shutdown = on_error = on_cleanup

    def stop(self, timeout: float = 3.0) -> None:
        """Release everything at the end of the process, whatever the state."""
        self._release(timeout)
        self._bridge.remove()

    def _load(self) -> Worker:
        """Start the worker and wait for its pipeline. Raises what the pipeline raises."""
        if self.worker is None:
            self.worker = self._make_worker()
        worker = self.worker
        worker.start()
        told = 0.0
        while worker.pipeline is None:
            if worker.error is not None:
                raise worker.error
            if not self.context.ok():
                raise ExternalShutdownException
            if time.monotonic() - told > 1.0:
                # The executor waits here, and its timer with it.
                told = time.monotonic()
                self._publish_diagnostics()
            time.sleep(0.02)
        return worker

    def _make_worker(self) -> Worker:
        from ood_perception.building import choose_device  # imports torch

        settings, mailbox = self.settings, Mailbox(self._streams)
        on_gpu = choose_device(settings.device).type == 'cuda'
        fallback = Fallback(steps(settings.engine, settings.device, on_gpu))
        width, height = settings.warm_up_size
        hint = {(height, width)} if width else set()
        count = min(len(self._streams), settings.max_batch)

        def build(step: int) -> Any:
            sizes, memory = set(worker.sizes.values()) or hint, self._learnt.of(worker.pipeline)
            wanted = fallback.steps[step]
            return loading.build(self.settings, wanted, sizes, count, self.report, memory)

        worker = Worker(mailbox, self._outputs, settings, self.health, build, fallback)
        worker.enabled = self.enabled
        return worker

    def _unsubscribe(self) -> None:
        for subscriptions in self._inputs.values():
            subscriptions.destroy()
        self._inputs.clear()

    def _stop_worker(self, timeout: float = 10.0) -> None:
        if self.worker is not None and not self.worker.stop(timeout) and self.context.ok():
            self.get_logger().warn(
                'the worker is still busy; it gives its memory back when it comes out of that'
            )

    def _release(self, timeout: float = 10.0) -> None:
        self._unsubscribe()
        self._stop_worker(timeout)
        self.worker = None
        for outputs in self._outputs.values():
            outputs.destroy()
        self._outputs.clear()
        self._streams = []
        self._learnt.kept = b''

    # ---- parameters ------------------------------------------------------------------------

    def apply_budget(self) -> None:
        """Read the parameters; the budget of alarms sets the threshold, where it can."""
        settings = parameters.read(self)
        if self.worker is not None:
            settings = self.worker.publisher.alarms.applied(settings)
            self.worker.settings = settings
        self.settings = settings

    def _set_rates(self) -> None:
        for stream in self._streams:
            camera = parameters.read_camera(self, stream.name, self.settings)
            stream.max_rate, stream.detect_rate = camera.max_rate, self.settings.detect_rate

    def apply_parameters(self) -> None:
        """Do as the parameters say now: budget, rates, and what is published."""
        self.apply_budget()
        settings, worker = self.settings, self.worker
        if worker is None:
            return
        self._set_rates()
        if not worker.publishing.acquire(timeout=1.0):
            self.report('warn', 'publish_score changes with the next parameter: publishing hangs')
            return
        try:
            for outputs in self._outputs.values():
                outputs.set_score(settings.publish_score)
                outputs.planner.announce(settings)
        finally:
            worker.publishing.release()

    # ---- what people see -------------------------------------------------------------------

    def _ask_for_output_check(self) -> None:
        # The graph learns the other node's name a moment after the event.
        self._check_outputs_soon = True

    def check_outputs(self) -> None:
        """Look for subscribers that we cannot reach."""
        for outputs in self._outputs.values():
            for publisher in outputs.publishers:
                ends = self.get_subscriptions_info_by_topic(publisher.topic_name)
                kind, own = type_name(publisher.msg_type), publisher.qos_profile
                for text in mismatches(ends, publisher.topic_name, kind, own, False):
                    self.report('warn', text)

    def why_blind(self) -> str:
        """Why nothing can be seen at the moment, whatever was seen before; '' = it may."""
        return gate.why_blind(self.state, self.worker, self.health)

    def _tell_states(self) -> None:
        for outputs in self._outputs.values():
            outputs.state.tell(self.settings)

    def _every_second(self) -> None:
        pipeline = self.worker.pipeline if self.worker is not None else None
        try:
            self._watch()
            if self._check_outputs_soon:
                self._check_outputs_soon = False
                self.check_outputs()
            self._publish_diagnostics()
        except Exception as error:
            # A timer that raises would end the executor.
            if self.worker is not None and self.worker.pipeline is not pipeline:
                return  # the one looked at was closed meanwhile
            self.report('error', f'diagnostics: {describe(error)}')

    def _watch(self) -> None:
        self._watchdog.watch_node(self)
        self._watchdog.watch_worker(self.worker, self.active)
        for stream in self._streams:
            subscriptions = self._inputs.get(stream.name)
            if self.worker is not None and subscriptions is not None:
                self._watchdog.watch_camera(
                    self, stream, self.worker, subscriptions.topic, subscriptions.mismatch()
                )

    def _publish_diagnostics(self) -> None:
        name = self.get_fully_qualified_name()
        values = {
            'profile': self.settings.profile,
            'engine_asked_for': self.settings.engine,
            'enabled': self.enabled,
            'transport_profile': os.environ.get(profile_variables()[0], ''),
        }
        doing = ''
        if (worker := self.worker) is not None:
            doing = worker.doing
            if (pipeline := worker.pipeline) is not None:
                values |= diagnostics.pipeline_values(pipeline)
                values |= diagnostics.alarm_values(worker.publisher.alarms, self.settings)
        statuses = [diagnostics.node_status(name, self.state, self.health, doing, values)]
        for stream in self._streams:
            subscriptions = self._inputs.get(stream.name)
            topic = subscriptions.topic if subscriptions else ''
            statuses.append(
                diagnostics.camera_status(name, stream, topic, self.active, self.health)
            )
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _fail(self, transition: str, error: Exception) -> None:
        if self.context.ok():
            self.health.error(transition, f'cannot {transition}: {describe(error)}')
