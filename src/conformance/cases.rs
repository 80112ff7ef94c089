//! The list of cases: `module { cases } own { cases with a process of their own }`.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($($then:tt)*) => { $($then)*! {
        registration {
            r1_register_reports_present_readiness
            r1_modify_reports_present_readiness
            r1_rearm_reports_present_readiness
            r1_all_interests_are_accepted_in_all_modes
            r2_second_register_of_an_fd_already_exists
            r2_duplicate_fd_is_another_source
            r2_pollers_may_share_a_source
            r3_modify_replaces_token_interest_and_mode
            r4_stale_key_is_not_found
            r4_foreign_key_is_not_found
            r4_keys_are_never_reused
            r7_register_of_o_path_fd_is_ebadf
            r8_empty_interest_reports_nothing
            r10_directions_outside_the_interest_are_refused
            r10_unknown_interest_bits_are_refused
            r10_rearm_arms_exactly_the_named_directions
            r10_rearm_and_drained_keep_level_mode_unchanged
        } own {
            r7_register_of_closed_fd_is_ebadf
            r9_register_accepts_any_fd_number
        }
        release {
            r5_deregistered_source_is_not_reported
            r5_deregister_drops_events_beyond_capacity
            r5_peer_sees_eof_after_deregister_and_drop
            r5_poller_survives_panicking_source_drop
            r5_deregister_releases_sources_of_all_kinds
            r6_poller_drop_releases_sources_of_all_kinds
        } own {
            r5_reused_fd_gets_no_event_of_old_file
            r5_fd_is_reused_by_files_of_other_kinds
            r5_repeated_registrations_leave_nothing_behind
            r6_poller_drop_releases_sources_and_own_fds
            r6_poller_drop_releases_a_thousand_sources
            r6_nineteen_thousand_sources_are_released
            r6_listener_port_is_free_after_release
        }
        level {
            l1_readable_repeats_until_drained
            l1_writable_repeats_until_full
            l1_hang_up_repeats
            l1_hundred_sources_are_reported_by_one_wait
            l1_events_follow_each_direction
            l2_data_read_before_wait_is_not_reported
            l2_only_registered_directions_are_reported
        } own {
            l1_busy_sources_are_reported_among_thousands
        }
        missed_wakeups {
            t1_spurious_reports_do_not_hide_ready_fds
            e1_source_woken_by_io_uring_is_reported_again
        } own {}
        one_shot {
            o1_event_is_reported_once_until_rearm
            o1_drained_does_not_rearm
            o1_hang_up_is_silent_until_rearm
            o1_one_event_disarms_both_directions
            o1_modify_rearms
            o1_two_pollers_alternate_a_thousand_times
        } own {}
        edge {
            e1_each_direction_is_reported_separately
            e1_hang_up_after_data_is_reported
            e1_completed_connect_is_reported
            e1_events_beyond_capacity_are_reported_despite_wakes
            e1_rearm_reports_unread_data
            e1_writability_is_reported_despite_intermediate_write
            e1_new_data_is_reported_a_thousand_times
            e2_new_data_is_reported_at_most_once
            e3_partial_read_causes_no_event
            e3_accept_causes_no_event
            e3_unchanged_sources_cause_no_events
            e4_data_after_drained_is_reported
            e4_full_pipe_reports_writability_after_drain
            e4_drained_after_short_transfer_is_truthful
            e4_premature_drained_suppresses_no_event
            e4_try_io_calls_drained
        } own {}
        edge_ends {
            e5_pipe_writer_reports_closed_reader
            e5_pipe_reader_reports_closed_writer
            e5_writable_interest_reports_socket_hang_up
            e5_half_close_and_close_are_reported_separately
            e5_hang_up_is_reported_after_drained
            e5_hang_up_wakes_wait_of_drained_reader
            e5_rearm_and_modify_repeat_a_hang_up
            e5_each_socket_error_is_reported
            e5_fifo_reports_its_next_writer
            e5_fifo_with_own_writer_wakes_wait
            e5_drained_after_hang_up_does_not_repeat_it
            e5_connect_after_register_is_reported
        } own {}
        flags {
            h1_event_beyond_capacity_is_verified_again
            h1_spurious_hint_does_not_end_wait
            h2_pipe_without_writer_is_readable
            h2_full_pipe_without_reader_is_writable
            h2_peer_close_ends_wait
            h3_poll_bits_map_to_the_same_readiness
            h3_error_is_not_reported_once_read
            h4_readiness_of_a_source_is_one_event
        } own {}
        time {
            t1_zero_timeout_collects_all_ready_sources
            t2_wait_without_timeout_blocks_until_event
            t2_urgent_data_ends_wait
            t3_wait_is_never_early
            t4_nanosecond_timeout_ends_and_max_does_not
            t6_timeout_is_measured_on_monotonic_clock
        } own {
            t2_unreportable_readiness_does_not_wake_wait
            t2_full_stream_with_rdhup_sleeps_until_writable
            t2_flood_on_disarmed_source_does_not_wake
            t4_huge_timeouts_sleep_until_woken
            t5_signals_do_not_end_wait
            t5_signal_storm_loses_no_event
        }
        capacity {
            q1_wait_reports_at_most_its_capacity
            q1_events_beyond_capacity_are_verified_again
            q1_zero_capacity_is_invalid_input
            q2_ready_sources_rotate_without_starvation
            q2_late_source_is_reported_in_turn
            q2_newcomer_overtakes_no_ready_source
        } own {
            q1_two_thousand_sources_are_reported_once_each
            q2_two_thousand_sources_rotate_without_starvation
        }
        wake {
            w1_wake_before_wait_ends_it
            w1_wake_during_wait_ends_it
            w1_wakes_coalesce
            w1_racing_wakes_are_not_lost
            w2_wake_is_not_an_event
            w3_waker_outlives_its_poller
        } own { w3_wake_in_signal_handler_keeps_errno }
        files {
            f1_files_are_always_ready
            f1_files_report_one_edge_per_call
        } own {
            f1_all_kinds_of_files_report_readability
            t2_all_kinds_of_files_end_wait
        }
        operations {
            m1_operation_in_watched_direction_is_refused
            m1_interest_in_operated_direction_is_refused
            m1_readable_interest_works_with_sends
            m1_writable_interest_works_with_receives
            c4_poller_owns_source_until_completion
            c6_accepted_sockets_are_nonblock_cloexec
            f2_files_are_read_and_written_at_position
            f2_devices_are_read_and_written
            q3_completions_stay_until_taken
            q3_completions_keep_their_order
        } own {}
        buffers {
            c1_hundreds_of_operations_complete_once_each
            c1_buffer_is_returned_with_any_result
            c1_received_bytes_are_counted_with_an_error
            c1_sent_bytes_are_counted_with_an_error
            c1_receive_continues_past_urgent_data
            c5_received_bytes_are_appended
            c5_recv_exact_collects_many_pieces
            c5_send_uses_the_given_range
            c5_invalid_buffers_and_ranges_are_refused
        } own {}
        results {
            c2_pipe_operations_match_system_calls
            c2_stream_operations_match_system_calls
            c2_datagram_operations_match_system_calls
            c2_connect_and_accept_match_system_calls
            c2_device_operations_match_system_calls
            c2_read_of_unreadable_file_matches_call
            c2_recv_from_returns_inet_sender
            c2_recv_from_returns_unix_sender
            c2_eventfd_write_waits_instead_of_overflowing
            c2_connect_waits_while_backlog_is_full
            c2_each_datagram_waits_for_queue_space
            c2_datagram_is_sent_after_foreign_datagrams_drain
        } own {
            c2_datagram_waits_while_receiver_queue_is_full
            c2_operations_raise_no_sigpipe
        }
        eof {
            c2_reset_is_not_reported_as_eof
            c2_connect_gets_error_before_queued_receive
            c2_shutdown_operation_ends_receives
            c2_shutdown_by_call_ends_receives
            c2_receive_completes_after_f_setfl
            c2_shutdown_read_keeps_later_datagrams
            c2_listener_shutdown_operation_ends_accepts
            c2_listener_shut_down_by_call_ends_accepts
            c2_empty_write_matches_system_call
            l1_urgent_data_is_reported_with_receive_queued
        } own {}
        order {
            c3_queued_receives_get_bytes_in_order
            c3_late_receive_does_not_overtake
            c3_sends_reach_the_peer_in_order
            c3_connections_are_accepted_in_order
            c3_read_and_write_queues_are_independent
            c3_operations_after_connect_wait_for_it
            c3_datagrams_keep_submission_order
        } own {}
        blocking {
            c7_blocking_files_do_not_block_operations
            c7_poller_drop_restores_file_status_flags
            c7_nonblocking_files_stay_nonblocking
            c7_blocking_fifo_does_not_block_operations
            c7_huge_send_does_not_block
            c7_connect_on_blocking_socket_does_not_block
            c7_pollers_may_share_a_blocking_file
        } own {
            c7_full_terminal_does_not_block_writes
            c7_shared_fifos_and_terminals_stay_blocking
        }
        process {
            p4_wakers_cross_threads
        } own {
            p1_inherited_poller_fails_in_child
            p1_poller_drop_in_child_keeps_childs_memory
            p1_child_opens_pollers_of_all_backends
            p2_internal_fds_are_close_on_exec
            p5_failed_open_leaves_no_fds_behind
            p5_lowered_fd_limit_loses_no_event
        }
        cancels {
            x1_queued_operation_is_cancelled_at_once
            x1_cancelled_queued_send_is_never_sent
            x1_next_operation_proceeds_after_cancel
            x1_bytes_received_before_cancel_are_kept
            x1_bytes_sent_before_cancel_are_counted
            x1_pending_connect_is_cancelled
            x1_timeouts_and_nops_can_be_cancelled
            x2_cancel_after_delivery_is_not_found
            x2_cancel_after_deregister_is_ok_until_delivery
            x2_cancel_of_foreign_operation_is_not_found
            x2_operation_ids_are_never_reused
        } own {}
        deadlines {
            x3_deadline_ends_every_waiting_operation
            x3_deadline_ends_queued_operation
            x3_next_operation_proceeds_after_deadline
            x3_zero_and_maximum_deadlines_work
            x3_timeouts_complete_in_time_order
            x3_hundreds_of_deadlines_end_their_operations
            x3_timeouts_of_any_length_complete
            x3_deadline_racing_with_data_loses_no_byte
        } own {
            x3_deadlines_of_completed_operations_do_not_wake
        }
        drops {
            r5_cancelled_operations_complete_in_submission_order
            r5_peer_sees_eof_despite_pending_operations
        } own {
            r5_operations_on_reused_fd_use_new_file
            d2_untaken_accepted_sockets_are_closed
            d2_sockets_accepted_during_drop_are_closed
            p1_child_cannot_affect_parents_operations
        }
        streams {
            c8_recv_multi_delivers_each_byte_in_order
            c8_recv_multi_ends_once_at_eof
            c8_recv_multi_keeps_packet_boundaries
            c2_recv_multi_delivers_data_before_reset
            c2_recv_multi_on_unconnected_file_fails
            c3_recv_multi_keeps_its_queue_order
            m1_multishot_in_watched_direction_is_refused
            q1_results_beyond_capacity_are_delivered_later
        } own {
            c8_recv_multi_among_hundreds_of_polls_sleeps
        }
        multishot_cancel {
            x1_cancelled_recv_multi_loses_no_data
            x3_recv_multi_ends_at_its_deadline
            r5_recv_multi_ends_with_deregister
        } own {
            x1_racing_cancel_of_recv_multi_loses_nothing
            d1_thousand_drops_with_hundreds_of_multishots
        }
        accept_multi {
            c8_accept_multi_accepts_each_client_in_order
            c6_accept_multi_sockets_are_nonblock_cloexec
            c3_accept_multi_keeps_its_queue_order
            c2_listener_shutdown_ends_accept_multi
            c2_accept_multi_on_other_files_fails
            x1_cancelled_accept_multi_loses_no_connection
            x3_accept_multi_ends_at_its_deadline
        } own {
            c8_accept_multi_resumes_after_emfile
            c8_accept_multi_accepts_ten_thousand_clients
            d2_untaken_accept_multi_sockets_are_closed
        }
        silent {
            c1_skip_success_sends_are_silent
            c1_skip_success_file_writes_are_silent
            c1_skip_success_connects_and_shutdowns_are_silent
            c1_silent_sends_do_not_end_wait
            c1_skip_success_failures_complete
            c1_skip_success_short_send_completes
            c1_silent_sends_end_before_next_completion
            c1_skip_success_with_results_is_refused
            c1_silent_send_starts_next_operation_at_once
            c1_silent_send_releases_buffer_and_files
            c1_pending_counts_unfinished_operations
            x2_cancelled_skip_success_operation_completes
            x2_racing_cancel_is_silent_or_completes_once
        } own {}
        pools {
            c8_receives_get_pool_buffers_in_fifo_order
            c8_buffers_outlive_the_poller
            c8_two_pollers_share_a_pool
            c8_program_can_take_pool_buffers
            c8_shortage_reported_outside_wait_is_handled
            c8_flood_does_not_starve_other_streams
            c8_idle_streams_keep_no_buffer_from_others
            c8_four_buffers_serve_sixty_four_senders
        } own {
            c8_receives_without_buffer_sleep
            c8_flood_without_buffer_does_not_wake
            c8_buffer_returned_by_thread_wakes_receive
            c8_hundreds_of_pools_leave_no_memory
        }
        drop_writes {} own {
            d1_thousand_drops_with_operations_in_flight
            d1_poller_drop_waits_for_direct_read
        }
        races {} own {
            x1_racing_cancel_of_receive_loses_no_byte
            x1_racing_cancel_of_send_counts_sent_bytes
            x1_racing_cancel_of_accept_loses_no_connection
        }
        mixed {
            w1_wake_ends_wait_with_operations_pending
            t1_readiness_and_completions_share_one_wait
            t1_watched_and_operated_directions_work_together
            t1_zero_timeout_completes_queued_operations
        } own {
            t2_waiting_operations_let_the_thread_sleep
            t2_flood_does_not_complete_waiting_send
            c1_operations_beyond_ring_size_complete
            x1_operations_beyond_ring_size_are_cancelled
        }
        disk {
            c2_read_at_and_write_at_match_calls
            c2_empty_write_at_changes_nothing
            c2_partly_cached_reads_are_complete
            c3_operations_at_offsets_are_unordered
            m1_operations_at_offset_use_no_direction
            c5_read_at_appends_to_buffer
            c5_vectored_buffers_are_used_in_order
            c5_invalid_vectored_buffers_are_refused
        } own {}
        disk_ends {
            x1_disk_operation_completes_or_is_cancelled
            x3_disk_operation_completes_or_times_out
            r5_deregistered_file_is_held_until_disk_completes
            c7_disk_reads_do_not_block_waits
            f2_written_data_is_synced_and_read_back
        } own {
            c4_file_stays_open_until_disk_completes
            c7_disk_threads_stay_within_limit
        }
        disk_drops {} own {
            d1_direct_read_does_not_outlive_poller
            d1_cold_read_does_not_outlive_poller
        }
        messages {
            c6_received_files_keep_order_and_are_cloexec
            c3_messages_keep_queue_order
            c2_truncated_message_is_flagged
            c5_received_messages_are_appended
            c2_messages_pass_credentials
            c2_recv_msg_returns_datagram_timestamp
            c2_pktinfo_is_received_and_sent
            c2_recv_msg_returns_sender_address
            c2_message_that_waits_passes_files_once
            c2_partial_send_msg_matches_call
        } own {}
        scm_rights {} own {
            c2_message_passes_at_most_253_files
            d2_untaken_passed_files_are_closed
            x1_cancelled_recv_msg_loses_no_file
            p5_recv_msg_without_free_fds_truncates_files
            c4_passed_files_stay_open_until_sent
        }
        splices {
            c2_splice_moves_bytes_in_order
            c2_splice_uses_the_file_position
            c2_splice_waits_for_either_side
            c2_idle_splice_reports_ends_at_once
            c2_splices_lose_and_duplicate_no_byte
            c2_invalid_splices_match_system_call
            m1_splice_uses_two_directions
            c7_splices_restore_file_status_flags
        } own {
            c2_splices_raise_no_sigpipe
        }
        splice_queues {
            c3_splice_is_queued_on_both_sources
            c3_operations_behind_cancelled_splice_proceed
            r5_deregister_of_either_source_ends_splice
            x1_cancelled_splice_moves_no_bytes
            c1_hundreds_of_splices_complete_once_each
        } own {
            c1_thousands_of_splices_end_on_small_stack
        }
        disk_kinds {
            c2_offsets_at_limits_match_calls
            c2_offsets_on_all_file_kinds_match_calls
            c2_direct_io_alignment_errors_match_calls
        } own {
            x1_read_of_waiting_tracefs_file_is_cancelled
            c2_writes_raise_no_sigxfsz
        }
        file_position {
            c3_writes_share_the_position_with_a_duplicate
            c3_reads_share_the_position_with_a_duplicate
        } own {
            c2_write_cut_short_moves_the_position
        }
        fd_tables {} own {
            c4_calls_use_the_table_of_the_submitter
            c4_jobs_in_flight_survive_an_unshared_table
            c6_opens_arrive_in_the_table_of_the_submitter
            c6_cached_opens_use_the_table_of_the_submitter
            c4_message_passes_descriptors_of_the_submitter
            w1_wake_comes_from_a_thread_with_another_table
            e1_poller_uses_files_of_the_callers_table
        }
        fd_numbers {} own {
            p2_own_descriptors_leave_stdio_free
            p3_replaced_descriptors_end_no_process
            c2_new_fds_are_the_lowest_free
        }
        limits {
            r5_kept_handle_spares_a_lingering_close
            r5_close_does_not_linger_once_that_is_off
            l1_connected_datagram_sender_awaits_room
            l1_terminal_with_vmin_0_is_ready_with_bytes
        } own {
            c8_accept_is_paused_after_emfile
            r1_device_attached_later_is_reported_after_rearm
        }
        connects {
            c2_tcp_connect_changed_meanwhile_fails_without_peer
            c2_unix_connect_shut_down_meanwhile_fails_without_peer
            c2_unix_socket_shut_down_before_connects
            c2_refused_socket_connects_again
        } own {}
        opens {
            c2_open_matches_system_call
            c2_failed_open_matches_system_call
            c2_open_of_thread_self_uses_submitting_thread
            c7_open_of_fifo_does_not_block
            c6_opened_files_can_be_used_at_once
            x1_cancelled_open_creates_no_file
        } own {
            d2_untaken_opened_files_are_closed
            p5_open_without_free_fd_creates_nothing
            c2_open_uses_credentials_of_the_thread
        }
        cached_opens {
            c2_cached_opens_match_system_call
            c2_cached_open_follows_rename_and_unlink
        } own {
            c2_open_waits_for_a_lease
            c2_opens_follow_dropped_privileges
            c7_slow_fuse_open_delays_no_other_operation
        }
        slow_files {} own {
            c7_slow_file_delays_no_other_operation
            c7_hung_mount_leaves_threads_to_other_files
        }
        multishot_end {
            c8_end_follows_any_number_of_results
            c2_reset_reaches_receive_after_failed_send
            c2_reset_does_not_affect_next_connection
            c8_late_receive_does_not_overtake_waiting_one
        } own {
            p1_inherited_pool_is_refused_in_child
        }
        signals {} own {
            p3_signal_mask_is_restored
            p3_async_flags_and_owner_are_restored
            p3_foreign_signals_cause_no_event
            p3_pollers_of_one_thread_report_own_sources
            p3_commands_start_with_unblocked_signals
            p5_pollers_of_one_thread_survive_overflow
            p5_full_signal_queue_loses_no_event
        }
    } };
}
