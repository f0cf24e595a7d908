//! Limits of a configuration, for the container's group.

use oci_spec::runtime::{LinuxDeviceType, LinuxResources};

use super::CompileError;
use crate::cgroup::{DeviceKind, DeviceRule, Limits, size_of_pages};

/// The limits among a configuration's `linux.resources`.
///
/// # Errors
/// When it asks for limits that are not provided.
pub fn limits(resources: &LinuxResources) -> Result<Limits, CompileError> {
    let refused = [
        ("linux.resources.blockIO", resources.block_io().is_some()),
        ("linux.resources.network", resources.network().is_some()),
        ("linux.resources.rdma", resources.rdma().as_ref().is_some_and(|map| !map.is_empty())),
        ("linux.resources.unified", resources.unified().as_ref().is_some_and(|map| !map.is_empty())),
    ];
    if let Some((property, _)) = refused.iter().find(|(_, present)| *present) {
        return Err(CompileError::unsupported(*property));
    }
    let mut limits = Limits { pids: resources.pids().as_ref().map(|pids| pids.limit()), ..Limits::default() };
    if let Some(cpu) = resources.cpu() {
        let named = |list: &Option<String>| list.as_ref().is_some_and(|list| !list.is_empty());
        let sets = [("cpus", named(cpu.cpus())), ("mems", named(cpu.mems()))];
        if let Some((set, _)) = sets.iter().find(|(_, present)| *present) {
            return Err(CompileError::unsupported(format!("linux.resources.cpu.{set}")));
        }
        limits.cpu_shares = cpu.shares();
        limits.cpu_quota = cpu.quota();
        limits.cpu_period = cpu.period();
        limits.cpu_burst = cpu.burst();
        limits.cpu_idle = cpu.idle();
    }
    for pages in resources.hugepage_limits().iter().flatten() {
        let property = "linux.resources.hugepageLimits";
        let size = size_of_pages(pages.page_size());
        let size =
            size.ok_or_else(|| CompileError::invalid(property, format!("{:?} is no size", pages.page_size())))?;
        limits.huge_pages.insert(size, pages.limit());
    }
    if let Some(memory) = resources.memory() {
        limits.memory = memory.limit();
        limits.memory_and_swap = memory.swap();
        limits.memory_reservation = memory.reservation();
        limits.swappiness = memory.swappiness();
        limits.no_oom_killer = memory.disable_oom_killer().unwrap_or(false);
    }
    Ok(limits)
}

/// The device rules among a configuration's `linux.resources`, in their order.
///
/// # Errors
/// When a rule has a number that no device has.
pub fn device_rules(resources: &LinuxResources) -> Result<Vec<DeviceRule>, CompileError> {
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| CompileError::invalid("linux.resources.devices", format!("{number} is no device number"))),
    };
    let rules = resources.devices().iter().flatten().map(|rule| {
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => DeviceKind::All,
            Some(LinuxDeviceType::B) => DeviceKind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Character,
            Some(LinuxDeviceType::P) => {
                return Err(CompileError::invalid("linux.resources.devices", "a fifo is no device"));
            }
        };
        let access = rule.access().clone().unwrap_or_else(|| "rwm".to_owned());
        Ok(DeviceRule { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
    });
    rules.collect()
}
