//! Requests to drivers: each with the one C struct that it takes, which its size is checked against.
#![allow(unsafe_code)] // What a driver does with a request is a contract with the kernel.

use rustix::fs::OFlags;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::raw::c_int;
use v4l::v4l_sys::{
    v4l2_buffer, v4l2_capability, v4l2_ext_controls, v4l2_fmtdesc, v4l2_format, v4l2_frmivalenum,
    v4l2_frmsizeenum, v4l2_input, v4l2_query_ext_ctrl, v4l2_querymenu, v4l2_requestbuffers, v4l2_streamparm,
};
use v4l::v4l2::vidioc::{self, _IOC_TYPE};

/// A request whose argument holds no pointer.
#[derive(Debug)]
pub struct Request<T>(Pointing<T>);

/// A request whose argument holds pointers.
#[derive(Debug)]
pub struct Pointing<T> {
    code: _IOC_TYPE,
    argument: PhantomData<fn(T)>,
}

/// Bits of a request's number: 8 for the number, 8 for the letter, 14 for the argument's size, 2 for the direction.
const SIZE_SHIFT: u32 = 16;
const DIRECTION_SHIFT: u32 = 30;

impl<T> Pointing<T> {
    /// # Safety
    /// The kernel takes a `T` with the request `code`, and `T` is a C struct of which all zeros is a value.
    const unsafe fn new(code: _IOC_TYPE) -> Self {
        assert!((code >> SIZE_SHIFT) as usize & 0x3fff == size_of::<T>(), "the argument is another one");
        Self { code, argument: PhantomData }
    }

    /// The argument, all zeros.
    pub fn zeroed(&self) -> T {
        // SAFETY: promised in `new`.
        unsafe { std::mem::zeroed() }
    }

    /// Makes the request; again when a signal interrupted it.
    ///
    /// # Safety
    /// What `argument` points to must be there for what the driver does with it, during the call and after it.
    pub unsafe fn call(&self, file: impl AsFd, argument: &mut T) -> io::Result<()> {
        loop {
            let pointer = std::ptr::from_mut(argument).cast();
            // SAFETY: the kernel reads and writes one `T` there, as promised in `new`; the rest is the caller's.
            match unsafe { v4l::v4l2::ioctl(file.as_fd().as_raw_fd(), self.code, pointer) } {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl<T> Request<T> {
    /// # Safety
    /// As for [`Pointing::new`], and there is no pointer in `T` that the kernel follows.
    const unsafe fn new(code: _IOC_TYPE) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Pointing::new(code) })
    }

    /// The argument, all zeros.
    pub fn zeroed(&self) -> T {
        self.0.zeroed()
    }

    /// Makes the request; again when a signal interrupted it.
    pub fn call(&self, file: impl AsFd, argument: &mut T) -> io::Result<()> {
        // SAFETY: it points nowhere.
        unsafe { self.0.call(file, argument) }
    }
}

/// The number of a request that reads (2), writes (1) or does both (3) with a `T`.
const fn code<T>(direction: u32, letter: u8, number: u8) -> _IOC_TYPE {
    let size = size_of::<T>() as u32;
    (direction << DIRECTION_SHIFT | size << SIZE_SHIFT | (letter as u32) << 8 | number as u32) as _IOC_TYPE
}

macro_rules! requests {
    ($($kind:ident $name:ident: $argument:ty = $code:expr;)*) => {$(
        // SAFETY: as the kernel's headers define it; the size is checked.
        pub const $name: $kind<$argument> = unsafe { $kind::new($code) };
    )*};
}

requests! {
    Request QUERYCAP: v4l2_capability = vidioc::VIDIOC_QUERYCAP;
    Request ENUM_FMT: v4l2_fmtdesc = vidioc::VIDIOC_ENUM_FMT;
    Request ENUM_FRAMESIZES: v4l2_frmsizeenum = vidioc::VIDIOC_ENUM_FRAMESIZES;
    Request ENUM_FRAMEINTERVALS: v4l2_frmivalenum = vidioc::VIDIOC_ENUM_FRAMEINTERVALS;
    Request ENUMINPUT: v4l2_input = vidioc::VIDIOC_ENUMINPUT;
    Request G_INPUT: c_int = vidioc::VIDIOC_G_INPUT;
    Request S_FMT: v4l2_format = vidioc::VIDIOC_S_FMT;
    Request G_PARM: v4l2_streamparm = vidioc::VIDIOC_G_PARM;
    Request S_PARM: v4l2_streamparm = vidioc::VIDIOC_S_PARM;
    Request QUERY_EXT_CTRL: v4l2_query_ext_ctrl = vidioc::VIDIOC_QUERY_EXT_CTRL;
    Request QUERYMENU: v4l2_querymenu = vidioc::VIDIOC_QUERYMENU;
    Request REQBUFS: v4l2_requestbuffers = vidioc::VIDIOC_REQBUFS;
    Request STREAMON: c_int = vidioc::VIDIOC_STREAMON;
    Request STREAMOFF: c_int = vidioc::VIDIOC_STREAMOFF;
    Pointing G_EXT_CTRLS: v4l2_ext_controls = vidioc::VIDIOC_G_EXT_CTRLS;
    Pointing S_EXT_CTRLS: v4l2_ext_controls = vidioc::VIDIOC_S_EXT_CTRLS;
    Pointing QUERYBUF: v4l2_buffer = vidioc::VIDIOC_QUERYBUF;
    Pointing QBUF: v4l2_buffer = vidioc::VIDIOC_QBUF;
    Pointing DQBUF: v4l2_buffer = vidioc::VIDIOC_DQBUF;
    Request DMA_BUF_SYNC: DmaBufSync = code::<DmaBufSync>(1, b'b', 0);
    Request DRM_CREATE_DUMB: DrmCreateDumb = code::<DrmCreateDumb>(3, b'd', 0xb2);
    Request DRM_DESTROY_DUMB: u32 = code::<u32>(3, b'd', 0xb4);
}

// SAFETY: as the kernel's headers define them; the sizes are checked.
const DMA_HEAP_ALLOC: Request<DmaHeapAllocation> =
    unsafe { Request::new(code::<DmaHeapAllocation>(3, b'H', 0)) };
// SAFETY: as above.
const DRM_HANDLE_TO_FD: Request<DrmPrime> = unsafe { Request::new(code::<DrmPrime>(3, b'd', 0x2d)) };

/// A dma-buf of `bytes` of a dma-buf heap.
pub fn allocate_from_heap(heap: &OwnedFd, bytes: usize) -> io::Result<OwnedFd> {
    let mut request = DMA_HEAP_ALLOC.zeroed();
    request.len = bytes as u64;
    request.fd_flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
    DMA_HEAP_ALLOC.call(heap, &mut request)?;
    // SAFETY: the kernel has made it for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd.cast_signed()) })
}

/// The memory of a graphics card's picture as a dma-buf.
pub fn share_picture(card: &OwnedFd, handle: u32) -> io::Result<OwnedFd> {
    let mut prime = DRM_HANDLE_TO_FD.zeroed();
    (prime.handle, prime.flags) = (handle, (OFlags::RDWR | OFlags::CLOEXEC).bits());
    DRM_HANDLE_TO_FD.call(card, &mut prime)?;
    // SAFETY: the kernel has made it for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(prime.fd) })
}

/// `struct dma_buf_sync`.
#[repr(C)]
#[derive(Debug)]
pub struct DmaBufSync {
    /// Read (1), write (2), end (4).
    pub flags: u64,
}

/// `struct dma_heap_allocation_data`.
#[repr(C)]
#[derive(Debug)]
struct DmaHeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

/// `struct drm_mode_create_dumb`.
#[repr(C)]
#[derive(Debug)]
pub struct DrmCreateDumb {
    pub height: u32,
    pub width: u32,
    pub bpp: u32,
    pub flags: u32,
    pub handle: u32,
    pub pitch: u32,
    pub size: u64,
}

/// `struct drm_prime_handle`.
#[repr(C)]
#[derive(Debug)]
struct DrmPrime {
    handle: u32,
    flags: u32,
    fd: i32,
}
