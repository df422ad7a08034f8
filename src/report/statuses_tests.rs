use jiff::Timestamp;

use super::*;

fn sha(digit: &str) -> Sha {
    Sha(digit.repeat(40))
}

fn web() -> CanaryKey {
    CanaryKey::new("shop", "web")
}

fn failed(revert: Revert) -> CanaryState {
    let why = "success rate 87 % < 99 %".to_owned();
    CanaryState::Failed { step: "at weight 20".to_owned(), why, revert }
}

fn states() -> Vec<CanaryState> {
    let branch = || "serin/revert/shop-web-01234567".to_owned();
    let mut states = vec![
        CanaryState::Pending(Progress::Queued),
        CanaryState::Pending(Progress::WaitingFor("approval by hook gate".to_owned())),
        CanaryState::Pending(Progress::Step { step: 2, of: 5, weight: 20 }),
        CanaryState::Pending(Progress::Promoting),
        CanaryState::Pending(Progress::RollingBack),
        CanaryState::Promoted,
        CanaryState::Superseded(sha("b")),
        CanaryState::NoVerdict("request-success-rate has no data".to_owned()),
        CanaryState::Cancelled("Canary deleted".to_owned()),
        CanaryState::StillCondemned,
        CanaryState::Restores(sha("a")),
        CanaryState::Unusable("app/web.yaml:3:7: duplicate key `image`".to_owned()),
    ];
    let reverts = [
        Revert::Pending,
        Revert::Waiting("bbbbbbb does not render".to_owned()),
        Revert::In(sha("c")),
        Revert::By(sha("d")),
        Revert::FixedForward(sha("d")),
        Revert::Proposed(branch()),
        Revert::Refused(branch()),
        Revert::BroughtBack(sha("c")),
        Revert::Cancelled,
        Revert::Moot,
        Revert::Kept,
        Revert::Unknown,
        Revert::None(NothingWhy::Off),
        Revert::None(NothingWhy::NoPromotedRecord),
        Revert::None(NothingWhy::OursFailed),
        Revert::None(NothingWhy::TooMany(5)),
        Revert::None(NothingWhy::NothingFits(Vec::new())),
    ];
    states.extend(reverts.map(failed));
    states
}

#[test]
fn every_state_has_a_short_text() {
    let mut text = String::new();
    for state in states() {
        for attempt in [1, 2] {
            let want = canary_status("prod", &web(), &sha("b"), &state, attempt, 1, None);
            assert!(want.status.description.chars().count() <= 140, "{want:?}");
            if attempt == 1 {
                text += &format!("{:?}: {}\n", want.status.state, want.status.description);
            }
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_long_reason_gives_way_to_what_became_of_the_branch() {
    let state = CanaryState::Failed { step: String::new(), why: "ä".repeat(500), revert: Revert::In(sha("c")) };
    let text = state.description(&web(), 2);
    assert_eq!(text.chars().count(), 140);
    assert!(text.starts_with("attempt 2: rolled back: ää") && text.ends_with("…; reverted in ccccccc"), "{text}");
}

#[test]
fn links_lead_to_the_status_branch() {
    let link = |repository: &str| status_link(repository, "serin/status/prod", "shop/web.yaml");
    let want = "https://github.com/acme/shop/blob/serin/status/prod/shop/web.yaml";
    for repository in [
        "https://github.com/acme/shop.git",
        "https://user@github.com/acme/shop/",
        "ssh://git@github.com:22/acme/shop.git",
        "git@github.com:acme/shop.git",
    ] {
        assert_eq!(link(repository).as_deref(), Some(want), "{repository}");
    }
    assert_eq!(
        (link("file:///srv/shop.git"), link("/srv/shop.git"), link("http://127.0.0.1:1/a.git")),
        (None, None, None)
    );
}

#[test]
fn long_contexts_stay_apart() {
    assert_eq!(context("prod", &web()), "serin/prod/shop/web");
    assert_eq!(rollup_context("prod"), "serin/prod");
    let long = |last: &str| context("prod", &CanaryKey::new(&"n".repeat(200), &format!("{}{last}", "x".repeat(60))));
    assert_eq!(long("a").chars().count(), 255);
    assert_ne!(long("a"), long("b"));
}

#[test]
fn many_canaries_are_told_little() {
    let step = CanaryState::Pending(Progress::Step { step: 2, of: 5, weight: 20 });
    let text = |changed| canary_status("prod", &web(), &sha("b"), &step, 1, changed, None).status.description;
    assert_eq!((text(MANY).as_str(), text(MANY + 1).as_str()), ("step 2/5 weight 20", "queued"));
}

#[test]
fn a_rollup_says_the_worst() {
    let two = |a: CanaryState, b: CanaryState| Rollup {
        canaries: vec![(CanaryKey::new("shop", "api"), a), (web(), b)],
        ..Rollup::default()
    };
    let queued = || CanaryState::Pending(Progress::Queued);
    let waiting = |mut rollup: Rollup| {
        rollup.waiting = vec!["Deployment shop/worker".to_owned(), "Job shop/seed".to_owned()];
        rollup
    };
    let bad = Rollup { failed: vec!["Deployment shop/worker: not ready in 5m".to_owned()], ..Rollup::default() };
    let broken = Rollup { problems: vec!["app/a.yaml:1:2: bad".to_owned()], ..waiting(two(queued(), queued())) };
    let mut text = String::new();
    for rollup in [
        Rollup::default(),
        two(queued(), CanaryState::Promoted),
        waiting(two(CanaryState::Promoted, CanaryState::Promoted)),
        two(CanaryState::Promoted, CanaryState::Promoted),
        two(queued(), failed(Revert::In(sha("c")))),
        two(CanaryState::Promoted, CanaryState::Superseded(sha("c"))),
        two(queued(), CanaryState::Superseded(sha("c"))),
        Rollup { canaries: vec![(web(), CanaryState::Restores(sha("a")))], ..Rollup::default() },
        bad,
        broken,
    ] {
        let want = rollup_status("prod", &sha("b"), &rollup, 1, None);
        text += &format!("{:?}: {}\n", want.status.state, want.status.description);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn each_attempt_ends_once() {
    let want = |state: &CanaryState, attempt| canary_status("prod", &web(), &sha("b"), state, attempt, 1, None);
    let queued = CanaryState::Pending(Progress::Queued);
    let step = CanaryState::Pending(Progress::Step { step: 1, of: 5, weight: 10 });
    let superseded = CanaryState::Superseded(sha("c"));
    for (posted, attempt, wanted, next, due) in [
        (&queued, 1, &queued, 1, false),
        (&queued, 1, &step, 1, true),
        (&step, 1, &CanaryState::Promoted, 1, true),
        (&CanaryState::Promoted, 1, &CanaryState::Promoted, 1, false),
        (&CanaryState::Promoted, 1, &step, 1, false),
        (&CanaryState::Promoted, 1, &failed(Revert::Pending), 1, false),
        (&failed(Revert::Pending), 1, &failed(Revert::In(sha("d"))), 1, true),
        (&failed(Revert::Pending), 1, &queued, 2, true),
        (&queued, 2, &failed(Revert::Pending), 1, false),
        (&superseded, 1, &failed(Revert::Pending), 1, true),
        (&superseded, 1, &queued, 1, false),
    ] {
        let entry = Posted { status: want(posted, attempt).status, attempt, at: Timestamp::UNIX_EPOCH };
        let wants = [want(wanted, next)];
        assert_eq!(!to_post(&wants, &[entry]).is_empty(), due, "{posted:?} {attempt} then {wanted:?} {next}");
    }
    // A confirmed prune makes room for another end, and is no attempt that people know of.
    let rollup = |confirmed, problems| Rollup { confirmed, problems, ..Rollup::default() };
    let stopped = rollup_status("prod", &sha("b"), &rollup(false, vec!["prune stopped".to_owned()]), 1, None);
    let confirmed = rollup_status("prod", &sha("b"), &rollup(true, Vec::new()), 1, None);
    assert_eq!(confirmed.status.description, "applied, everything is ready");
    let entry = Posted { status: stopped.status, attempt: stopped.attempt, at: Timestamp::UNIX_EPOCH };
    assert_eq!(to_post(std::slice::from_ref(&confirmed), &[entry]), [confirmed]);
    // The last of several wishes for one context counts, and other contexts are not touched by it.
    let other = rollup_status("prod", &sha("b"), &Rollup::default(), 1, None);
    let due = to_post(&[want(&queued, 1), other.clone(), want(&step, 1)], &[]);
    assert_eq!(due, [other, want(&step, 1)]);
}

#[test]
fn what_is_not_remembered_leaves_an_end_alone() {
    let canary = |revert| canary_status("prod", &web(), &sha("b"), &failed(revert), 1, 1, None);
    let rollup = |revert| {
        let canaries = vec![(web(), failed(revert))];
        rollup_status("prod", &sha("b"), &Rollup { canaries, ..Rollup::default() }, 1, None)
    };
    let pending = canary_status("prod", &web(), &sha("b"), &CanaryState::Pending(Progress::Queued), 1, 1, None);
    for (known, vague) in [
        (canary(Revert::In(sha("c"))), canary(Revert::Unknown)),
        (rollup(Revert::In(sha("c"))), rollup(Revert::Unknown)),
    ] {
        assert!(vague.stands(&known.status) && !known.stands(&vague.status), "{vague:?}");
        let entry = Posted { status: known.status, attempt: 1, at: Timestamp::UNIX_EPOCH };
        assert_eq!(to_post(std::slice::from_ref(&vague), &[entry]), []);
        assert_eq!(to_post(std::slice::from_ref(&vague), &[]), [vague]);
    }
    let vague = canary(Revert::Unknown);
    assert!(!vague.stands(&pending.status), "a commit does not stay pending");
    let again = canary_status("prod", &web(), &sha("b"), &failed(Revert::Unknown), 2, 1, None);
    let entry = Posted { status: vague.status, attempt: 1, at: Timestamp::UNIX_EPOCH };
    assert_eq!(to_post(std::slice::from_ref(&again), &[entry]), [again]);
}
