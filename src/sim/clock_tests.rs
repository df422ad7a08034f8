use std::sync::atomic::AtomicU32;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn quiet() -> bool {
    true
}

/// Runs the same body on a runtime with our hook and on a plain one.
fn on_both<F: Future<Output = ()>>(body: impl Fn(SimClock) -> F) {
    let clock = SimClock::new(at(0));
    let runtime = clock.runtime().unwrap();
    runtime.block_on(body(clock));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body(SimClock::new(at(0))));
}

#[test]
fn a_day_of_ticks_is_quick() {
    let clock = SimClock::new(at(0));
    clock.runtime().unwrap().block_on(async {
        let began = Instant::now();
        let ticker = clock.clone();
        let ticks = tokio::spawn(async move {
            let mut ticks = 0;
            while ticker.now() < at(24 * 3600) {
                ticker.sleep_until(ticker.now() + Duration::from_secs(10)).await;
                ticks += 1;
            }
            ticks
        });
        clock.until(at(24 * 3600), quiet).await;
        assert_eq!(ticks.await.unwrap(), 8640);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    });
}

#[test]
fn a_guard_on_another_thread_holds_time() {
    on_both(|clock| async move {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let guard = clock.in_flight();
        let worker = clock.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            sender.send(worker.now()).unwrap();
            drop(guard);
        });
        let waiter = clock.clone();
        let task = tokio::spawn(async move {
            let seen = receiver.await.unwrap();
            (seen, waiter.now())
        });
        clock.until(at(3600), quiet).await;
        assert_eq!(task.await.unwrap(), (at(0), at(0)));
        assert_eq!(clock.now(), at(3600));
        thread.join().unwrap();
    });
}

#[test]
fn sleepers_wake_by_deadline_then_by_registration() {
    on_both(|clock| async move {
        let log = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = [("c", 5), ("a", 3), ("d", 5), ("b", 3), ("past", -1)]
            .into_iter()
            .map(|(name, second)| {
                let (clock, log) = (clock.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    clock.sleep_until(at(second)).await;
                    log.lock().unwrap().push((name, clock.now()));
                })
            })
            .collect();
        clock.until(at(10), quiet).await;
        for task in tasks {
            task.await.unwrap();
        }
        let want = vec![("past", at(0)), ("a", at(3)), ("b", at(3)), ("c", at(5)), ("d", at(5))];
        assert_eq!(*log.lock().unwrap(), want);
    });
}

#[test]
fn ping_pong_ends_before_time_jumps() {
    on_both(|clock| async move {
        let (ping, mut pinged) = tokio::sync::mpsc::channel::<u32>(1);
        let (pong, mut ponged) = tokio::sync::mpsc::channel::<u32>(1);
        tokio::spawn(async move {
            while let Some(n) = pinged.recv().await {
                if pong.send(n + 1).await.is_err() {
                    return;
                }
            }
        });
        let player = clock.clone();
        let game = tokio::spawn(async move {
            let mut n = 0;
            while n < 3000 {
                ping.send(n).await.unwrap();
                n = ponged.recv().await.unwrap();
            }
            player.now()
        });
        let sleeper = clock.clone();
        tokio::spawn(async move { sleeper.sleep_until(at(1)).await });
        clock.until(at(2), quiet).await;
        assert_eq!(game.await.unwrap(), at(0));
    });
}

#[test]
fn loopback_data_arrives_before_time_jumps() {
    on_both(|clock| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            for _ in 0..50 {
                stream.read_exact(&mut byte).await.unwrap();
                stream.write_all(&byte).await.unwrap();
            }
        });
        let caller = clock.clone();
        let client = tokio::spawn(async move {
            let _guard = caller.in_flight();
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut byte = [7];
            for _ in 0..50 {
                stream.write_all(&byte).await.unwrap();
                stream.read_exact(&mut byte).await.unwrap();
            }
            caller.now()
        });
        clock.until(at(60), quiet).await;
        assert_eq!(client.await.unwrap(), at(0));
        server.await.unwrap();
    });
}

#[test]
fn an_unquiet_world_and_a_dropped_sleeper_are_respected() {
    on_both(|clock| async move {
        let sleeper = clock.clone();
        let task = tokio::spawn(async move { sleeper.sleep_until(at(5)).await });
        tokio::task::yield_now().await;
        assert_eq!(clock.next_deadline(), Some(at(5)));
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(clock.next_deadline(), None);
        let asked = AtomicU32::new(0);
        clock.until(at(1), || asked.fetch_add(1, Ordering::Relaxed) >= 3).await;
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    });
}

#[test]
fn speed_mode_takes_real_time_and_plans_again() {
    on_both(|clock| async move {
        clock.set_pace(Pace::Speed(1000.0));
        let began = Instant::now();
        let late = clock.clone();
        let nested = tokio::spawn(async move {
            late.sleep_until(at(10)).await;
            late.sleep_until(at(20)).await;
            late.now()
        });
        clock.until(at(40), quiet).await;
        assert_eq!(nested.await.unwrap(), at(20));
        assert!(began.elapsed() >= Duration::from_millis(38), "{:?}", began.elapsed());
    });
}

#[test]
fn a_timer_set_after_an_idle_spell_takes_its_time() {
    on_both(|clock| async move {
        clock.set_pace(Pace::Speed(1000.0));
        let driver = clock.clone();
        let driver = tokio::spawn(async move { driver.run(quiet).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let began = Instant::now();
        clock.sleep_until(at(20)).await;
        assert!(began.elapsed() >= Duration::from_millis(19), "{:?}", began.elapsed());
        driver.abort();
    });
}

#[test]
fn run_waits_for_work_and_stops_when_dropped() {
    on_both(|clock| async move {
        let driver = clock.clone();
        let driver = tokio::spawn(async move { driver.run(quiet).await });
        clock.sleep_until(at(3)).await;
        tokio::task::yield_now().await;
        clock.sleep_until(at(9)).await;
        assert_eq!(clock.now(), at(9));
        driver.abort();
    });
}

#[test]
fn a_call_whose_far_side_sleeps_lets_time_pass() {
    on_both(|clock| async move {
        let near = clock.clone();
        let call = tokio::spawn(async move {
            let guard = near.in_flight();
            let far = near.sleep_within_call(at(60));
            // The near side hangs up first, as a client does whose timeout strikes.
            let hung_up = crate::ports::timeout(&near, Duration::from_secs(2), far).await.is_err();
            drop(guard);
            (hung_up, near.now())
        });
        clock.until(at(10), quiet).await;
        assert_eq!(call.await.unwrap(), (true, at(2)));
        assert_eq!((clock.now(), clock.calls_in_flight()), (at(10), 0));
    });
}
