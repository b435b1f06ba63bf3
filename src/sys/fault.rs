//! The SIGBUS guard: a fault inside a registered mapping poisons that mapping instead of killing the process.
//!
//! When a mapped file shrinks, reading the pages it lost raises SIGBUS. The handler finds the mapping that holds the
//! address, marks it poisoned for good, and puts zero pages over all of it so that the copy under way can end. The copy
//! then sees the mark and answers with an error; the zeros go nowhere.
//!
//! Not here: the mapping and the copy (`mapping`).
#![expect(unsafe_code, reason = "installs a signal handler and maps pages from within it")]

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};

/// The address range of one live mapping, as the handler sees it.
///
/// Slots form a list that only grows: the handler may walk it at any moment, so a slot is never freed, only used again.
#[derive(Debug)]
struct Slot {
    next: *const Slot,
    taken: AtomicBool,
    start: AtomicUsize,
    /// Zero while the slot names no mapping; written last on entering and first on leaving.
    end: AtomicUsize,
    poisoned: AtomicBool,
}

// SAFETY: `next` is written before the slot is published and never changed; it points to a leaked slot.
unsafe impl Sync for Slot {}

static HEAD: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// The disposition found when the guard was installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A registered address range; leaving scope unregisters it.
#[derive(Debug)]
pub(super) struct Guard {
    slot: &'static Slot,
}

impl Guard {
    /// Registers `len` bytes of mapped memory from address `start` on.
    ///
    /// # Safety
    /// `start` must be the page-aligned start of a mapping of `len` bytes that the caller owns, that is only ever read
    /// through raw pointers, and that stays mapped until the guard is dropped: on a fault it is replaced by zero pages.
    ///
    /// # Errors
    /// The handler could not be installed.
    pub(super) unsafe fn new(start: usize, len: usize) -> io::Result<Self> {
        install()?;
        let slot = free_slot().unwrap_or_else(grow);
        slot.poisoned.store(false, SeqCst);
        slot.start.store(start, SeqCst);
        slot.end.store(start.saturating_add(len), SeqCst);
        Ok(Self { slot })
    }

    /// Whether a fault ever hit the range.
    #[inline]
    pub(super) fn poisoned(&self) -> bool {
        self.slot.poisoned.load(SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.slot.end.store(0, SeqCst);
        self.slot.taken.store(false, SeqCst);
    }
}

/// The slots from the newest to the oldest.
fn slots() -> impl Iterator<Item = &'static Slot> {
    let mut at: *const Slot = HEAD.load(SeqCst);
    std::iter::from_fn(move || {
        // SAFETY: HEAD and every `next` are null or point to a slot that was leaked, hence lives forever.
        let slot = unsafe { at.as_ref() }?;
        at = slot.next;
        Some(slot)
    })
}

fn free_slot() -> Option<&'static Slot> {
    slots().find(|slot| slot.taken.compare_exchange(false, true, SeqCst, SeqCst).is_ok())
}

fn grow() -> &'static Slot {
    let slot = Box::leak(Box::new(Slot {
        next: HEAD.load(SeqCst),
        taken: AtomicBool::new(true),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        poisoned: AtomicBool::new(false),
    }));
    let slot: *mut Slot = slot;
    loop {
        // SAFETY: the slot was leaked above, and until it is published below only this thread can reach it.
        let next = unsafe { (*slot).next };
        match HEAD.compare_exchange(next.cast_mut(), slot, SeqCst, SeqCst) {
            // SAFETY: published; from here on it is only read, and it lives forever.
            Ok(_) => return unsafe { &*slot },
            // SAFETY: publishing failed, so the slot is still reachable by this thread alone.
            Err(newer) => unsafe { (*slot).next = newer },
        }
    }
}

/// Installs the handler once for the process.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed =
        INSTALLED.get_or_init(|| install_now().map_err(|error| error.raw_os_error().unwrap_or(0)));
    installed.map_err(io::Error::from_raw_os_error)
}

fn install_now() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is a valid value of that plain C struct.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks for the present one, written to a local of the right type.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Kept before the handler can run, so that it always finds what to fall back on.
    PREVIOUS.get_or_init(|| previous);
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is fully initialised (an empty mask is all zeros on Linux) and names a handler of the
    // signature that SA_SIGINFO asks for.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The handler. Everything it calls is async-signal-safe: atomics, `mmap`, `sigaction`, `raise`.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: errno is thread-local and always valid; a handler must leave it as it found it.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo; si_addr is its field for faults (si_code > 0).
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if !(code > 0 && contain(address)) {
        pass_on(signal, code, info, context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Poisons the mapping that holds `address` and makes its pages readable; false where there is none.
fn contain(address: usize) -> bool {
    for slot in slots() {
        let end = slot.end.load(SeqCst);
        let start = slot.start.load(SeqCst);
        // A slot being used again could show an old end beside a new start. The slot of the fault itself is stable (its
        // copy is under way), so a pair that does not hold still is never the one looked for.
        if end != slot.end.load(SeqCst) || !(start <= address && address < end) {
            continue;
        }
        // Before the pages change: who reads a zero must find the mark.
        slot.poisoned.store(true, SeqCst);
        // SAFETY: the range is a live mapping whose owner promised (Guard::new) that it is read through raw pointers
        // only and stays mapped while registered, so replacing its pages breaks no reference. Zero pages for all of it:
        // one fault per mapping, and no split of it into pieces.
        let mapped = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                end - start,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        return mapped != libc::MAP_FAILED;
    }
    false
}

/// Hands a SIGBUS that is none of ours to the handler before us, or lets the default end the process.
fn pass_on(signal: libc::c_int, code: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(previous) = PREVIOUS.get() else { return };
    let handler = previous.sa_sigaction;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: restores a disposition that the kernel gave us.
        unsafe { libc::sigaction(signal, previous, ptr::null_mut()) };
    } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: the address was installed with SA_SIGINFO, so it is a function of this signature.
        let action: Action = unsafe { std::mem::transmute::<usize, Action>(handler) };
        action(signal, info, context);
    } else {
        type Action = extern "C" fn(libc::c_int);
        // SAFETY: the address was installed without SA_SIGINFO, so it is a function of this signature.
        let action: Action = unsafe { std::mem::transmute::<usize, Action>(handler) };
        action(signal);
    }
    // A fault repeats by itself when this handler returns. A signal that somebody sent does not, and Rust's own handler
    // only resets the disposition (which takes the guard away) and counts on the repetition.
    if code <= 0 && disarmed(signal) {
        // SAFETY: raising a signal is always sound; it is blocked until the handler returns.
        unsafe { libc::raise(signal) };
    }
}

/// Whether the signal now has its default effect.
fn disarmed(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero sigaction is a valid value of that plain C struct.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks for the present disposition, written to a local of the right type.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) };
    asked == 0 && now.sa_sigaction == libc::SIG_DFL
}
