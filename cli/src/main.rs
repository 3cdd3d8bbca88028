//! `cmn`: see the library of the same package.

use std::process::ExitCode;

// Small, short-lived allocations dominate in the API server; mimalloc keeps them apart per thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commonage::main()
}
