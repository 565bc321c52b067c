"""One file for a device: artifacts, the core and a runner, run by ``python bundle.zip run``.

`pack` makes it here. There, `launch` unpacks it and puts the stand-ins of `shims` in the place of
small libraries that are not installed, then `device` measures by the same code as everywhere.
"""
