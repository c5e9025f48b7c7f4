"""The machine that scripts/gpu-test runs on: its GPU, its TensorRT, and the programs, built here or elsewhere."""

import ctypes
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ["gpu", "no_alloc_tensorrt"]
LIBRARIES = "OCELLI_TENSORRT_LIBRARIES"
BUILD_LIMIT = 1800


class Failed(Exception):
    """A step did not show what it has to; what it measured all the same."""

    def __init__(self, why, numbers=None):
        super().__init__(why)
        self.numbers = numbers or {}


def say(text):
    print(f"gpu-test: {text}", file=sys.stderr, flush=True)


def device():
    """The first CUDA device, asked of the driver; why there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, "there is no NVIDIA driver (libcuda.so.1)"
    number, version, handle = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    status = cuda.cuInit(0)
    if status != 0:
        return None, f"the driver does not start (CUDA error {status})"
    if cuda.cuDeviceGetCount(ctypes.byref(number)) != 0 or number.value == 0:
        return None, "the driver finds no device"
    cuda.cuDeviceGet(ctypes.byref(handle), 0)
    name = ctypes.create_string_buffer(128)
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDriverGetVersion(ctypes.byref(version))

    def attribute(which):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), which, handle)
        return value.value

    found = {
        "name": name.value.decode(errors="replace"),
        "capability": f"{attribute(75)}.{attribute(76)}",
        "integrated": bool(attribute(18)),
        "cuda_driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }
    return found, None


# What TensorRT-RTX's headers name (ComputeCapability in NvInfer.h, 1.3 to 1.7).
RTX_SERVES = ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]
# The first TensorRT for a compute capability and those before the next, as its release notes say.
FIRST = {"8.9": (8, 5), "10.0": (10, 8)}


@dataclass
class TensorRt:
    """A TensorRT that can be opened."""

    file: str
    rtx: bool
    version: tuple

    def __str__(self):
        return ("TensorRT-RTX " if self.rtx else "TensorRT ") + ".".join(str(part) for part in self.version)

    def shares_profiles(self):
        """Contexts share an optimization profile; before, each has to have one for each batch size."""
        return self.rtx or self.version >= (10,)

    def lacks(self, capability):
        """Why it does not serve such a GPU; None where nothing says so."""
        if self.rtx:
            if capability in RTX_SERVES:
                return None
            serves = ", ".join(RTX_SERVES)
            return f"{self} names {serves}, and not compute capability {capability}: that needs a full TensorRT"
        first = [known for known in FIRST if number(known) <= number(capability)]
        if not first or self.version >= FIRST[first[-1]]:
            return None
        needed = ".".join(str(part) for part in FIRST[first[-1]])
        return f"{self} does not serve compute capability {capability}: that needs TensorRT {needed} or later"


def tensorrt(folder):
    """The TensorRT that the program will open; None where there is none."""
    patterns = ["libnvinfer.so.*", "libtensorrt_rtx.so.*"]
    if folder:
        files = [str(file) for pattern in patterns for file in sorted(pathlib.Path(folder).glob(pattern))]
    else:
        files = [f"libnvinfer.so.{major}" for major in (11, 10, 8)] + ["libtensorrt_rtx.so.1"]
    for file in files:
        try:
            version = ctypes.CDLL(file).getInferLibVersion()
        except (OSError, AttributeError):
            continue
        rtx = "rtx" in file
        # Version 8 counts in thousands, later ones in ten thousands.
        unit = 1000 if version < 10000 and not rtx else 10000
        return TensorRt(file, rtx, (version // unit, version % unit // 100, version % 100))
    return None


def glibc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").split()[1]
    except (ValueError, AttributeError, IndexError):
        return "unknown"


def needed_glibc(files):
    """The newest version of glibc that these programs and libraries name."""
    named = {match.decode() for file in files for match in re.findall(rb"GLIBC_(\d+\.\d+)", file.read_bytes())}
    return max(named, key=number, default="unknown")


def number(version):
    return [int(part) for part in re.findall(r"\d+", version)]


def built():
    """Builds here; program and tests by name."""
    there = [test for test in TESTS if (ROOT / "tests" / f"{test}.rs").exists()]
    tests = [argument for test in there for argument in ("--test", test)]
    # Tests bring the program along.
    command = ["cargo", "test", "--no-run", "--message-format=json", "--release", "--locked", "--features", "tensorrt"]
    try:
        done = subprocess.run(
            [*command, *tests], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=BUILD_LIMIT, check=False
        )
    except OSError as why:
        raise Failed(f"cargo can't be run ({why}); --prebuilt FOLDER needs none") from why
    except subprocess.TimeoutExpired as why:
        raise Failed(f"the build takes longer than {BUILD_LIMIT} s") from why
    if done.returncode != 0:
        raise Failed("the build failed, see above; --prebuilt FOLDER needs none")
    programs = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        name = message.get("target", {}).get("name")
        if message.get("executable") and name in [*TESTS, "ocelli"]:
            programs[name] = pathlib.Path(message["executable"])
    return programs


def libraries_of(program):
    """Shared libraries that it opens at its start, but for those of the C and C++ compilers."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s*(\S+) => (/\S+)", said, re.MULTILINE)
    everywhere = re.compile(r"^(lib(c|m|dl|rt|pthread|resolv|util|gcc_s|stdc\+\+)\.so|ld-linux)")
    return {name: path for name, path in found if not everywhere.match(name)}


def pack(folder, capability):
    """Makes a folder for a machine on which nothing can be built; `capability` is its GPU's, where that is known."""
    theirs = os.environ.get(LIBRARIES) or ROOT / "assets" / "tensorrt" / "lib"
    packed = tensorrt(theirs)
    lacks = packed and capability and packed.lacks(capability)
    if lacks:
        raise Failed(f"{lacks} ({LIBRARIES} names its folder; scripts/tensorrt --full fetches one)")
    folder.mkdir(parents=True, exist_ok=True)
    programs = built()
    if packed and pathlib.Path(packed.file).name.encode() not in programs["ocelli"].read_bytes():
        raise Failed(f"the program was not built for {packed}: OCELLI_TENSORRT_INCLUDE names the folder of its headers")
    for old in [*TESTS, "ocelli"]:
        (folder / old).unlink(missing_ok=True)
    libraries = {}
    for name, program in programs.items():
        shutil.copy2(program, folder / name)
        if shutil.which("strip"):
            subprocess.run(["strip", "--strip-debug", folder / name], check=True)
        libraries.update(libraries_of(program))
    for old in ("lib", "tensorrt", "onnxruntime"):
        shutil.rmtree(folder / old, ignore_errors=True)
    (folder / "lib").mkdir()
    for name, path in libraries.items():
        shutil.copy2(path, folder / "lib" / name)
    if packed:
        shutil.copytree(theirs, folder / "tensorrt")
    else:
        say(f"no TensorRT is packed: there is none in {theirs}; the machine has to have one")
    onnxruntime = ROOT / "assets" / "onnxruntime"
    if onnxruntime.is_dir():
        # Golden answers are the CPU's. Its name, behind a link, tells its version.
        shutil.copytree(onnxruntime, folder / "onnxruntime", symlinks=True)
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "pack.json"]
    about = {"machine": platform.machine(), "glibc": needed_glibc(files), "programs": sorted(programs)}
    (folder / "pack.json").write_text(json.dumps(about, indent=2) + "\n")
    size = sum(file.stat().st_size for file in files)
    runs = f"for {about['machine']} with glibc {about['glibc']} or newer"
    say(f"{folder}: {', '.join(about['programs'])}; {packed or 'no TensorRT'}; {size >> 20} MiB, {runs}")


def parts(folder, mebibytes):
    """Cuts the folder's archive into files small enough to be carried one by one beside it; how many."""
    for old in folder.parent.glob(f"{folder.name}.part-*"):
        old.unlink()
    cut = ["split", f"--bytes={mebibytes}M", "--numeric-suffixes", "--suffix-length=3", "-", f"{folder}.part-"]
    # On all processors, in blocks that are unpacked on all too.
    packed = ["tar", "--create", "--use-compress-program=xz -T0 -3", f"--directory={folder.parent}", folder.name]
    with subprocess.Popen(packed, stdout=subprocess.PIPE) as archive:
        done = subprocess.run(cut, stdin=archive.stdout, check=False)
    if archive.returncode != 0 or done.returncode != 0:
        raise Failed(f"{folder} can't be cut into parts")
    count = len(list(folder.parent.glob(f"{folder.name}.part-*")))
    say(
        f"{folder}.part-000 and on: {count} files of at most {mebibytes} MiB. With all of them in one folder there: "
        f"cat {folder.name}.part-* | xz -dc -T0 | tar --extract, then scripts/gpu-test --prebuilt {folder.name}"
    )
    return count


def unpacked(folder):
    """Program and tests of such a folder, if they can run here."""
    try:
        about = json.loads((folder / "pack.json").read_text())
    except (OSError, ValueError) as why:
        raise Failed(f"{folder} was not made by --pack: {why}") from why
    if about["machine"] != platform.machine():
        raise Failed(f"{folder} is for {about['machine']}, this machine is {platform.machine()}")
    if number(glibc()) < number(about["glibc"]):
        raise Failed(f"{folder} needs glibc {about['glibc']}, here is {glibc()}: make it on an older system")
    return {name: folder / name for name in about["programs"]}
