//! What must become of a pod: a small model of Kubernetes, apart from the code that it judges.

/// `restartPolicy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Always,
    OnFailure,
    Never,
}

impl Policy {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

/// What the program of a container does in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Serves,
    Succeeds,
    Fails,
    /// Fails so many times, then serves.
    ServesAfter(usize),
    /// Fails so many times, then succeeds.
    SucceedsAfter(usize),
    /// Its command does not exist.
    NoCommand,
    /// Its image never comes.
    NoImage,
}

/// Where a container ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Runs,
    Restarts,
    Done { well: bool },
    Waits,
}

fn rest(fate: Fate, policy: Policy) -> Rest {
    let never = policy == Policy::Never;
    match fate {
        Fate::NoImage => Rest::Waits,
        Fate::Serves => Rest::Runs,
        Fate::Succeeds if policy == Policy::Always => Rest::Restarts,
        Fate::Succeeds => Rest::Done { well: true },
        Fate::Fails | Fate::NoCommand | Fate::ServesAfter(_) | Fate::SucceedsAfter(_) if never => {
            Rest::Done { well: false }
        }
        Fate::Fails | Fate::NoCommand => Rest::Restarts,
        Fate::ServesAfter(_) => Rest::Runs,
        Fate::SucceedsAfter(_) if policy == Policy::Always => Rest::Restarts,
        Fate::SucceedsAfter(_) => Rest::Done { well: true },
    }
}

/// The phase that a pod comes to, given the fates of its init and its app containers.
pub(crate) fn phase(policy: Policy, init: &[Fate], apps: &[Fate]) -> &'static str {
    let init_policy = if policy == Policy::Never { Policy::Never } else { Policy::OnFailure };
    for fate in init {
        match rest(*fate, init_policy) {
            Rest::Done { well: true } => {}
            Rest::Done { well: false } => return "Failed",
            _ => return "Pending",
        }
    }
    let rests: Vec<Rest> = apps.iter().map(|fate| rest(*fate, policy)).collect();
    if rests.contains(&Rest::Waits) {
        "Pending"
    } else if rests.iter().all(|rest| *rest == Rest::Done { well: true }) {
        "Succeeded"
    } else if rests.iter().all(|rest| matches!(rest, Rest::Done { .. })) {
        "Failed"
    } else {
        "Running"
    }
}
