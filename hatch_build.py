"""Build hook: an editable install gets the start-up files too, and nothing else is copied."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StartUpFilesHook(BuildHookInterface):
    """Installs `registration/` beside an editable install's path file.

    The recipes are left out on purpose: they are read from the checkout, where a copy would go stale.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Choose the files that an editable wheel contains.

        Args:
            version: "editable" or "standard".
            build_data: hatchling's mutable build settings; `force_include_editable` is read in editable builds only.
        """
        included = self.build_config.target_config["force-include"]
        build_data["force_include_editable"] = {
            source: target for source, target in included.items() if source.startswith("registration/")
        }
