//! A further process in a container that runs.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use oci_spec::runtime::Process;

use super::record::CONFIG;
use super::{Containers, Created, LifecycleError, Status};
use crate::container::compile::{HostFacts, compile_exec, open};
use crate::container::{Launch, Stdio, begin_exec};

/// A process that is to be started.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container.
    pub id: &'a str,
    /// The process.
    pub process: &'a Process,
    /// Its standard streams, unless it has a terminal.
    pub stdio: Stdio<'a>,
}

impl Containers {
    /// What the first process of a container was configured as: the base of further ones.
    ///
    /// # Errors
    /// When the container does not exist or its configuration cannot be read.
    pub fn first_process(&self, id: &str) -> Result<Process, LifecycleError> {
        self.record(id)?;
        let spec = self.configuration(id)?;
        spec.process().clone().ok_or_else(|| LifecycleError::Compile {
            path: self.root.join(id).join(CONFIG),
            source: crate::container::compile::CompileError::Missing { property: "process" },
        })
    }

    /// Starts a further process, a child of the caller.
    ///
    /// # Errors
    /// When the container does not run, or the kernel refuses something.
    pub fn exec(&self, order: &Exec<'_>) -> Result<Created, LifecycleError> {
        let record = self.record(order.id)?;
        let Some(target) = record.open_process()? else {
            let (id, status) = (order.id.to_owned(), Status::Stopped);
            return Err(LifecycleError::Status { operation: "execute in", id, status });
        };
        let spec = self.configuration(order.id)?;
        let host = HostFacts::detect()?;
        let refused = |source| LifecycleError::Compile { path: Path::new("process").to_owned(), source };
        let mut compiled = compile_exec(&spec, order.process, &host).map_err(refused)?;
        compiled.outlive_parent();
        let group = record.open_group(&host.cgroups)?;
        let owned = open(&compiled.descriptors, None, &group.open_joins()?)?;
        let fds: Vec<BorrowedFd<'_>> = owned.iter().map(|descriptor| descriptor.as_fd()).collect();
        let failed = |error| LifecycleError::start(&error, &compiled.script);
        let launch = Launch { script: &compiled.script, fds: &fds, stdio: order.stdio };
        let process = begin_exec(&launch, target.as_fd()).and_then(|starting| starting.finish()).map_err(failed)?;
        Ok(Created { process, warnings: compiled.warnings })
    }
}
