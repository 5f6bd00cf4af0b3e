# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A lifecycle node that takes parameters as people write them."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode

from ood_perception.ros import parameters
from ood_perception.ros.settings import Settings


class ParameterNode(LifecycleNode):
    """
    Integers do for doubles, what is set already may stay, and a wrong name is answered with hints.

    Attributes:
        settings: the parameters as last read.
    """

    settings: Settings

    def check_parameters(self, changes: list[Any]) -> SetParametersResult:
        """Whether parameters may change so."""
        raise NotImplementedError

    def apply_parameters(self) -> None:
        """Do as the parameters say now."""
        raise NotImplementedError

    def watch_parameters(self) -> None:
        """Check every change before it is made, and apply it afterwards."""
        self.add_on_set_parameters_callback(self._checked)
        if hasattr(self, 'add_post_set_parameters_callback'):
            self.add_post_set_parameters_callback(lambda changed: self.apply_parameters())

    def _checked(self, changes: list[Any]) -> SetParametersResult:
        verdict = self.check_parameters(changes)
        humble = not hasattr(self, 'add_post_set_parameters_callback')
        if verdict.successful and humble and self.executor is not None:
            # It has no callback for afterwards.
            self.executor.create_task(self.apply_parameters)
        return verdict

    def parameter_values(self) -> dict[str, Any]:
        """Values of all parameters by name."""
        found = self.get_parameters_by_prefix('')
        return {name: parameters.plain(found[name].value) for name in sorted(found)}

    def set_parameters(self, parameter_list: list[Any]) -> list[SetParametersResult]:
        """Set parameters one by one; integers do for doubles, and what is set already may stay."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Any]) -> SetParametersResult:
        """Set all or none; integers do for doubles, and what is set already may stay."""
        changes = parameters.changes(self, parameter_list)
        if not changes:
            return SetParametersResult(successful=True)
        # rclpy would refuse them as well, but names none.
        absent = [p.name for p in changes if not self.has_parameter(p.name)]
        if absent:
            lines = parameters.unknown(absent, self.settings.camera_names())
            reason = '; '.join(lines) or f'{", ".join(absent)}: not before configure'
            return SetParametersResult(successful=False, reason=reason)
        return super().set_parameters_atomically(changes)
