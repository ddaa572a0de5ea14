"""An OpenGL context without a window, on machines with or without a GPU: MuJoCo's EGL or OSMesa one."""

import ctypes
import os
from typing import Any, Literal

from openltx.errors import DataError

Backend = Literal["egl", "osmesa"]
OSMESA_LIBRARIES = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")
EGL_PLATFORM_DEVICE = 0x313F

_NO_CONTEXT = (
    "Cannot draw off-screen on this machine ({}). The Playroom world needs EGL or OSMesa: "
    "apt-get install libegl1 libgl1-mesa-dri, or apt-get install libosmesa6, and run again."
)


def open_context(size: int) -> Any:
    """A current OpenGL context. ``MUJOCO_GL`` (egl or osmesa) decides which; if it is not set, the first that works.

    Raises ``DataError`` if there is none, or no MuJoCo.
    """
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's software renderer: one core a process
    backend = os.environ.get("MUJOCO_GL") or choose_backend()
    os.environ["MUJOCO_GL"] = backend
    try:
        if backend == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco.egl import GLContext
        context = GLContext(size, size)
        context.make_current()
    except ModuleNotFoundError as error:
        raise DataError('The Playroom world needs MuJoCo: pip install "openltx[world]".') from error
    except Exception as error:  # the bindings raise whatever they like
        raise DataError(_NO_CONTEXT.format(f"{backend}: {error}")) from error
    return context


def choose_backend() -> Backend:
    """EGL if a display can be initialised, else OSMesa if its library loads. Raises ``DataError`` if neither works."""
    if _egl_works():
        return "egl"
    if any(_load(library) for library in OSMESA_LIBRARIES):
        return "osmesa"
    raise DataError(_NO_CONTEXT.format("no EGL device and no OSMesa library"))


def _egl_works() -> bool:
    egl = _load("libEGL.so.1")
    if egl is None:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query, display_of = (egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT"))
    if not query or not display_of:
        return False
    pointer = ctypes.c_void_p
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.POINTER(pointer), ctypes.POINTER(ctypes.c_int))(query)
    display_of = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(display_of)
    devices, count = (pointer * 16)(), ctypes.c_int()
    if not query(len(devices), devices, ctypes.byref(count)):
        return False
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    displays = (display_of(EGL_PLATFORM_DEVICE, device, None) for device in devices[: count.value])
    return any(display and egl.eglInitialize(display, None, None) for display in displays)


def _load(library: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None
