//! The whole program over real sockets, between callers and the simulator: one test for each promise.
//!
//! Causes and order are asserted, never milliseconds: what takes too long fails under one generous watchdog. Every test
//! has a simulator and a gateway of its own, on ports that are free, so all of them run at once.
//!
//! What callers send, and what befalls the process, in rows; each names the tests that hold it, here or beside its code.
//!
//! | Row | What | Tests |
//! | --- | --- | --- |
//! | C1 | keys and grants | `access::without_a_good_key_*`, `access::what_a_caller_may_not_read_*`, `access::a_flight_under_way_*`, `crowd` |
//! | C2 | strange paths and ids | `callers::strange_paths_*`, the fuzzer of requests |
//! | C3 | the account's header | `callers::the_account_is_named_once_and_plainly` |
//! | C4 | headers of the caller | `callers::no_header_of_the_caller_*`, `smuggling::a_strange_request_of_http2_*` |
//! | C5 | framing | `smuggling::no_reading_of_a_body_*`, `smuggling::a_strange_request_of_http2_*`, `wire::broken_framing_*` |
//! | C6 | queries | `callers::malformed_queries_*`, `callers::a_query_of_64_kib_*`, the fuzzer of requests |
//! | C7 | large heads | `wire::too_many_or_too_large_headers_*`, `capacity::heads_cost_*` |
//! | C8 | a body on GET | `wire::a_body_on_a_get_*`, `wire::the_body_of_a_refused_method_*`, `smuggling` |
//! | C9 | methods and forms of targets | `callers::only_get_and_head_are_answered` |
//! | C10 | `Range`, codings | `copies::gzip_is_for_those_who_ask_for_it`, `keys` |
//! | C11 | slow and silent connections | `listener::two_thousand_slow_callers_*`, `listener::a_peer_has_so_many_*`, `listener::half_a_head_*`, `listener_tls::what_is_no_handshake_*`, deadlines in `edge::server::connection` |
//! | C12 | slow readers | `listener::an_answer_that_stands_still_*`, `capacity::who_takes_nothing_*`, `ndjson::fifty_readers_that_do_not_read_*`, the cut in `edge::server::connection` |
//! | C13 | callers that leave | `sparing::callers_who_hang_up_*`, `herd::the_first_caller_leaving_*`, `herd::those_who_joined_*` |
//! | C14 | herds | `herd::a_thousand_simultaneous_callers_*`, `sparing::a_herd_on_a_stale_page_*` |
//! | C15 | floods of HTTP/2 | `listener::floods_of_http2_*`, and in `edge::server::connection` |
//! | C16 | too much load | `listener::with_too_many_waiting_*`, `listener::who_has_none_waiting_*`, measured by `tests/load/run overload` |
//! | C17 | lists too large or too many | `walks::a_list_above_the_caps_*`, `ndjson::there_are_only_so_many_large_lists_*`, `contacts::walk` |
//! | C18 | the budget is spent | `patience::who_cannot_wait_for_a_pause_*`, `upstream::budget`, `app::spending` |
//! | C19 | a caller's rate | `access::who_asks_too_often_*` |
//! | O1 | a signal to stop | `listener::a_kept_connection_*`, `restarts::twenty_restarts_*`, `restarts::lists_that_will_not_*`, `program::a_second_signal_*`, `edge::drain` |
//! | O2 | `kill -9`, and a start | `restarts::after_a_kill_*` |
//! | O3 | descriptors | `listener::without_descriptors_*`, `listener::few_descriptors_*` |
//! | O4 | a memory limit | `memory`, `tests/memory.rs` |
//! | O5 | a reload | `reload`, `crowd` |
//! | O6 | a bad configuration, a taken port | `program::wrong_configuration_*`, `program::a_taken_port_*`, `config` |
//! | O7 | panics | `panics`, `edge::rescue`, `edge::server` (`a_panic_ends_one_connection_*`) |
//! | O8 | the log's output | `logs::requests_are_served_whatever_*`, `telemetry::queue` |
//! | O9 | series | `operators::there_are_two_thousand_series_at_most`, `operators::nothing_of_a_request_becomes_a_label` |
//! | O10 | purges | `purges::copies_go_when_they_are_told_to`, `contacts::copies` |

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test has nobody to return an error to"
)]

mod access;
mod callers;
mod canary;
mod capacity;
mod changing;
mod commands;
mod copies;
mod credentials;
mod crowd;
mod doctor;
mod export;
mod faults;
mod herd;
mod keys;
mod listener;
mod listener_tls;
mod logs;
mod matrix;
mod ndjson;
mod operators;
mod overview;
mod paging;
mod patience;
mod program;
mod purges;
mod records;
mod reload;
mod restarts;
mod rotation;
mod signatures;
mod smuggling;
mod sparing;
mod support;
mod tenancy;
mod tls;
mod token_service;
mod verbosity;
mod walks;
mod wire;
