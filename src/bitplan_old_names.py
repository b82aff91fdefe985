"""The import names that version 0.2 will drop: `planner`, `plans`, `sensitivity` and `solvers`.

They are packages of `bitplan` now. `bitplan_old_names.pth` imports this file whenever Python starts, so this file
imports nothing else. Its finder goes last: it answers only where no other file or distribution has the name.
"""

import sys

NAMES = ("planner", "plans", "sensitivity", "solvers")


class OldNames:
    """Finds a module under its old name and loads it from `bitplan`. It is finder and loader."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """The spec of a module under its old name; None for other names and for modules that do not exist."""
        if name.partition(".")[0] not in NAMES:
            return None
        from importlib.machinery import ModuleSpec
        from importlib.util import find_spec

        for finder in sys.meta_path[sys.meta_path.index(cls) + 1 :]:  # finders that came later go first
            if spec := finder.find_spec(name, path, target):
                return spec
        try:
            real = find_spec(f"bitplan.{name}")
        except ModuleNotFoundError:
            return None
        package = real is not None and real.submodule_search_locations is not None
        return real and ModuleSpec(name, cls(), is_package=package)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec):  # type: ignore[no-untyped-def]
        """None, for a new and empty module."""

    @staticmethod
    def exec_module(module):  # type: ignore[no-untyped-def]
        """Replace a module by the one in `bitplan`, and let a package take its attributes from there."""
        import warnings
        from importlib import import_module

        name = module.__name__
        new = "bitplan" if name == "planner" else f"bitplan.{name}"
        warnings.warn(
            f"the module {name} is now {new}; version 0.2 drops the old name", DeprecationWarning, stacklevel=2
        )
        real = import_module(f"bitplan.{name}")
        if not hasattr(module, "__path__"):
            sys.modules[name] = real
            return
        facade = import_module(new)  # a package stays a module of its own, or its files would be loaded twice
        module.__doc__, module.__all__ = facade.__doc__, list(getattr(facade, "__all__", ()))
        module.__getattr__ = lambda attribute: getattr(facade if hasattr(facade, attribute) else real, attribute)


if OldNames not in sys.meta_path:
    sys.meta_path.append(OldNames)  # type: ignore[arg-type]
