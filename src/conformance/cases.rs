//! The list of cases: `module { cases } own { cases with a process of their own }`.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($($then:tt)*) => { $($then)*! {
        registration {
            r1_register_reports_what_is_ready
            r1_modify_reports_what_is_ready
            r1_rearm_reports_what_is_ready
            r1_every_interest_is_accepted_in_every_mode
            r2_a_number_is_registered_once
            r2_a_duplicate_is_another_source
            r2_pollers_may_share_a_source
            r3_modify_replaces_token_interest_and_mode
            r4_a_stale_key_is_not_found
            r4_a_key_belongs_to_its_poller
            r4_a_key_never_names_a_later_registration
            r7_a_path_number_is_refused
            r8_an_empty_interest_is_silent
            r10_directions_outside_the_interest_are_refused
            r10_what_is_no_direction_is_refused
            r10_rearm_arms_exactly_what_it_names
            r10_level_is_the_same_after_rearm_and_drained
        } own {
            r7_a_closed_number_is_refused
            r9_any_number_works
        }
        release {
            r5_nothing_is_reported_after_deregister
            r5_what_waits_for_room_is_dropped_too
            r5_the_peer_sees_end_of_file_at_once
            r5_a_panicking_drop_leaves_the_poller_in_order
            r5_no_watch_outlives_deregister
            r6_no_watch_outlives_the_poller
        } own {
            r5_a_number_used_again_gets_no_old_event
            r5_a_number_passes_from_kind_to_kind
            r5_ten_thousand_registrations_leave_nothing
            r6_dropping_the_poller_releases_everything
            r6_a_thousand_go_with_the_poller
            r6_very_many_are_let_go
            r6_port_is_free_at_once
        }
        level {
            l1_repeats_until_drained
            l1_writable_until_full
            l1_hang_up_repeats
            l1_a_hundred_sources_at_once
            l1_directions_come_and_go
            l2_what_was_read_meanwhile_is_not_reported
            l2_only_what_was_asked_for
        } own {
            l1_a_few_are_busy_among_very_many
        }
        missed_wakeups {
            t1_what_came_to_nothing_hides_nothing
            e1_who_is_woken_by_a_ring_is_heard_again
        } own {}
        one_shot {
            o1_once_until_rearmed
            o1_drained_and_refilled_is_no_rearm
            o1_hang_up_does_not_break_the_silence
            o1_one_direction_ends_both
            o1_modify_arms_again
            o1_a_thousand_rounds_of_two_pollers
        } own {}
        edge {
            e1_each_direction_is_owed_its_own_report
            e1_hang_up_after_data_is_reported
            e1_a_connection_made_is_reported
            e1_what_waited_for_room_or_a_wake_is_still_reported
            e1_rearm_reports_what_was_left
            e1_room_is_reported_though_a_write_came_between
            e1_a_thousand_rounds
            e2_new_data_may_be_reported_and_is_true
            e3_a_partial_read_is_no_news
            e3_an_accept_is_no_news
            e3_nothing_happens_and_nothing_is_said
            e4_drained_and_refilled_is_reported
            e4_space_after_a_full_pipe_is_reported
            e4_short_reads_and_writes_count
            e4_drained_too_early_suppresses_nothing
            e4_try_io_tells_the_poller
        } own {}
        edge_ends {
            e5_a_pipe_writer_is_told_that_its_reader_has_gone
            e5_a_pipe_reader_is_told_that_its_writer_has_gone
            e5_a_socket_watched_for_writing_is_told_of_hang_up
            e5_half_a_close_and_a_whole_one_are_told_apart
            e5_an_end_is_told_though_another_direction_was_drained
            e5_an_end_ends_a_wait_of_a_drained_reader
            e5_rearm_and_modify_tell_of_an_end_again
            e5_each_error_is_told
            e5_a_fifo_is_told_of_its_next_writer
            e5_a_fifo_that_hung_up_ends_a_wait_when_its_writer_stays
            e5_drained_at_the_end_does_not_tell_of_it_again
            e5_a_connect_after_registering_is_told
        } own {}
        flags {
            h1_what_one_handler_took_is_not_reported_to_the_next
            h1_a_hint_that_came_to_nothing_does_not_end_the_wait
            h2_a_pipe_without_writer_is_readable
            h2_a_full_pipe_without_reader_is_writable
            h2_a_peer_that_closes_ends_the_wait
            h3_every_situation_reads_the_same
            h3_an_error_that_was_collected_is_gone
            h4_everything_about_a_source_is_one_event
        } own {}
        time {
            t1_zero_collects_everything
            t2_no_timeout_waits_for_an_event
            t2_urgent_data_ends_a_wait
            t3_never_early
            t4_one_nanosecond_ends_and_the_longest_does_not
            t6_measured_on_the_monotonic_clock
        } own {
            t2_what_is_not_to_be_told_keeps_no_wait_awake
            t2_a_full_stream_whose_peer_ended_sleeps_until_there_is_room
            t2_a_flood_for_nobody_wakes_nobody
            t4_ages_are_slept_through
            t5_signals_do_not_end_a_wait
            t5_nothing_is_lost_in_a_storm
        }
        capacity {
            q1_no_more_than_there_is_room_for
            q1_what_is_left_over_is_verified_again
            q1_no_room_is_refused
            q2_nobody_starves
            q2_a_late_comer_gets_his_turn
            q2_newcomer_overtakes_no_ready_source
        } own {
            q1_two_thousand_come_once_each
            q2_none_of_two_thousand_starves
        }
        wake {
            w1_a_wake_before_the_wait_ends_it
            w1_a_wake_during_the_wait_ends_it
            w1_wakes_coalesce
            w1_no_wake_is_lost_in_a_race
            w2_a_wake_is_not_an_event
            w3_a_waker_outlives_its_poller
        } own { w3_a_signal_handler_may_wake }
        files {
            f1_files_are_always_ready
            f1_files_tell_an_edge_once_a_call
        } own {
            f1_every_kind_of_file_can_be_watched
            t2_every_kind_of_file_ends_the_wait
        }
        operations {
            m1_a_watched_direction_is_not_operated
            m1_an_operated_direction_is_not_watched
            m1_one_may_watch_for_data_beside_sends
            m1_one_may_watch_for_room_beside_receives
            c4_the_source_is_the_pollers_until_then
            c6_accepted_sockets_neither_block_nor_outlive_exec
            f2_files_are_read_and_written_where_they_stand
            f2_devices_do_what_they_do
            q3_completions_stay_until_they_are_taken
            q3_completions_keep_their_order
        } own {}
        buffers {
            c1_each_of_hundreds_completes_once
            c1_the_buffer_comes_back_whatever_the_result
            c1_bytes_are_counted_beside_an_error
            c1_what_was_sent_is_counted_beside_an_error
            c1_urgent_data_hides_nothing
            c5_what_is_received_is_appended
            c5_exactly_so_much_in_many_pieces
            c5_ranges_are_sent
            c5_what_can_not_be_done_is_refused
        } own {}
        results {
            c2_pipes_give_what_the_call_gives
            c2_streams_give_what_the_call_gives
            c2_datagrams_give_what_the_call_gives
            c2_connections_are_made_as_by_the_call
            c2_devices_give_what_the_call_gives
            c2_what_can_not_be_read_says_so
            c2_datagrams_name_their_inet_sender
            c2_datagrams_name_their_unix_sender
            c2_a_counter_that_would_overflow_waits
            c2_a_connection_waits_for_room_in_the_queue
            c2_each_datagram_waits_for_its_own_room
            c2_room_that_others_have_taken_is_found
        } own {
            c2_a_datagram_waits_for_room_in_the_queue
            c2_no_operation_raises_sigpipe
        }
        eof {
            c2_a_reset_is_no_end
            c2_a_refusal_is_told_to_the_connect
            c2_to_shut_down_reading_ends_receives
            c2_shutdown_by_call_ends_receives
            c2_receive_completes_after_f_setfl
            c2_shutdown_read_keeps_later_datagrams
            c2_to_shut_a_listener_down_ends_accepts
            c2_listener_shut_down_by_call_ends_accepts
            c2_nothing_is_written_as_by_the_call
            l1_urgent_data_is_told_of_beside_a_receive
        } own {}
        order {
            c3_parked_receives_get_the_bytes_in_order
            c3_a_late_receive_does_not_overtake
            c3_sends_reach_the_peer_in_order
            c3_connections_are_accepted_in_order
            c3_the_lanes_do_not_wait_for_each_other
            c3_what_follows_a_connect_waits_for_it
            c3_datagrams_come_and_go_in_order
        } own {}
        blocking {
            c7_blocking_files_block_nobody
            c7_the_flags_outlive_the_poller_unchanged
            c7_what_did_not_block_goes_on_so
            c7_a_blocking_fifo_blocks_nobody
            c7_sending_very_much_blocks_nobody
            c7_connecting_blocks_nobody
            c7_pollers_may_share_a_blocking_file
        } own {
            c7_a_terminal_that_nobody_reads_blocks_nobody
            c7_shared_fifos_and_terminals_stay_blocking
        }
        process {
            p4_wakers_cross_threads
        } own {
            p1_a_forked_child_is_refused
            p1_a_childs_memory_is_its_own
            p1_a_child_makes_pollers_of_every_kind
            p2_internal_files_are_close_on_exec
            p5_out_of_files_leaves_nothing_behind
            p5_a_lowered_limit_loses_nothing
        }
        cancels {
            x1_one_that_waits_its_turn_is_cancelled_at_once
            x1_a_send_that_waits_its_turn_is_never_sent
            x1_who_comes_after_goes_on
            x1_what_was_received_before_is_kept
            x1_what_was_sent_before_is_counted
            x1_a_connect_is_given_up
            x1_timeouts_and_nops_can_be_cancelled
            x2_what_was_delivered_is_unknown
            x2_deregistered_ones_are_known_until_delivered
            x2_another_pollers_are_unknown
            x2_an_id_never_names_another_operation
        } own {}
        deadlines {
            x3_whatever_waits_is_ended
            x3_what_waits_its_turn_is_ended_too
            x3_who_comes_after_goes_on
            x3_no_time_and_all_the_time
            x3_timeouts_come_in_the_order_of_time
            x3_hundreds_of_deadlines
            x3_timeouts_of_any_length
            x3_together_with_data
        } own {
            x3_what_is_over_keeps_no_wait_awake
        }
        drops {
            r5_operations_complete_in_the_order_of_their_submission
            r5_the_peer_sees_the_end_of_a_busy_stream_at_once
        } own {
            r5_operations_on_a_number_used_again
            d2_accepted_sockets_that_nobody_takes_are_closed
            d2_what_is_done_as_the_poller_goes_is_closed
            p1_operations_are_the_parents
        }
        streams {
            c8_every_byte_comes_once_and_in_order
            c8_the_end_of_a_stream_is_one_last_result
            c8_packets_come_as_they_were_sent
            c2_a_reset_follows_what_came_before
            c2_what_is_no_connection_says_so
            c3_a_stream_takes_its_turn
            m1_a_watched_direction_has_no_streams
            q1_one_result_at_a_time
        } own {
            c8_begun_behind_hundreds_of_others_it_sleeps
        }
        multishot_cancel {
            x1_nothing_is_lost_when_a_stream_is_stopped
            x3_a_stream_ends_at_its_deadline
            r5_a_stream_ends_with_its_registration
        } own {
            x1_a_stream_stopped_in_a_race_loses_nothing
            d1_a_thousand_drops_with_hundreds_of_streams
        }
        accept_multi {
            c8_every_client_comes_once_and_in_order
            c6_each_of_many_neither_blocks_nor_outlives_exec
            c3_who_accepts_many_takes_his_turn
            c2_to_shut_a_listener_down_ends_it
            c2_what_is_no_listener_says_so
            x1_who_knocks_is_accepted_or_still_there
            x3_accepting_ends_at_its_deadline
        } own {
            c8_out_of_numbers_and_on_again
            c8_ten_thousand_clients_of_one_operation
            d2_of_many_those_that_nobody_takes_are_closed
        }
        silent {
            c1_sends_that_succeed_are_silent
            c1_writes_to_a_file_that_succeed_are_silent
            c1_connects_and_shutdowns_that_succeed_are_silent
            c1_silent_sends_end_no_wait
            c1_silent_failures_complete
            c1_a_short_silent_send_completes
            c1_silent_sends_are_over_before_the_next_completion
            c1_what_brings_something_is_not_silent
            c1_a_wait_does_not_sleep_on_what_follows_a_silent_send
            c1_what_a_silent_send_held_is_let_go
            c1_pending_counts_what_is_unfinished
            x2_what_is_to_end_is_not_silent
            x2_a_silent_end_or_a_completion
        } own {}
        pools {
            c8_who_waited_longest_comes_first
            c8_buffers_outlive_the_poller
            c8_two_pollers_share_a_pool
            c8_a_program_takes_buffers_too
            c8_a_shortage_that_shows_outside_of_a_wait
            c8_a_flood_starves_nobody
            c8_silent_streams_keep_no_buffer_from_others
            c8_four_buffers_serve_sixty_four_senders
        } own {
            c8_without_a_buffer_they_sleep
            c8_a_flood_for_which_there_is_no_buffer_wakes_nobody
            c8_a_buffer_that_comes_home_is_never_overlooked
            c8_hundreds_of_pools_leave_nothing
        }
        drop_writes {} own {
            d1_a_thousand_drops_with_thousands_under_way
            d1_a_disk_that_is_at_work_is_waited_for
        }
        races {} own {
            x1_a_byte_is_received_or_still_there
            x1_what_is_said_to_be_sent_arrives
            x1_a_connection_is_accepted_or_still_there
        }
        mixed {
            w1_a_wake_ends_a_wait_for_completions
            t1_readiness_and_completions_come_together
            t1_two_directions_of_one_source
            t1_zero_completes_successors
        } own {
            t2_operations_that_wait_let_the_thread_sleep
            t2_a_flood_completes_nothing_of_the_other_direction
            c1_ten_times_what_a_ring_holds
            x1_ten_times_what_a_ring_holds_is_cancelled
        }
        disk {
            c2_what_is_at_an_offset_is_as_by_the_call
            c2_nothing_written_is_nothing_changed
            c2_what_memory_lacks_is_read_too
            c3_offsets_are_worked_at_side_by_side
            m1_what_is_at_an_offset_is_in_no_direction
            c5_what_is_read_at_an_offset_is_appended
            c5_several_buffers_are_filled_and_written_in_turn
            c5_what_several_buffers_can_not_do_is_refused
        } own {}
        disk_ends {
            x1_at_a_disk_it_is_done_or_canceled
            x3_at_a_disk_it_is_done_or_its_time_has_passed
            r5_at_a_disk_the_file_is_held_until_then
            c7_a_disk_blocks_nobody
            f2_what_was_written_is_kept_and_read_again
        } own {
            c4_a_file_at_work_is_kept_open
            c7_a_few_threads_wait_for_disks
        }
        disk_drops {} own {
            d1_no_direct_read_outlives_the_poller
            d1_no_cold_read_outlives_the_poller
        }
        messages {
            c6_files_pass_in_order_and_close_on_exec
            c3_messages_stand_in_line_with_the_others
            c2_a_message_that_is_cut_says_so
            c5_messages_are_appended
            c2_credentials_pass
            c2_the_time_of_a_datagram_is_told
            c2_the_address_of_a_packet_comes_and_is_chosen
            c2_messages_name_their_sender
            c2_a_message_waits_for_room_and_passes_its_files_once
            c2_a_part_of_a_message_is_sent_as_by_the_call
        } own {}
        scm_rights {} own {
            c2_as_many_files_pass_as_one_message_can
            d2_passed_files_that_nobody_takes_are_closed
            x1_a_file_is_received_or_still_there
            p5_without_numbers_the_bytes_come_alone
            c4_files_are_open_until_they_were_sent
        }
        splices {
            c2_bytes_are_spliced_from_end_to_end
            c2_files_are_spliced_where_they_stand
            c2_a_splice_waits_for_either_side
            c2_splices_that_waited_tell_of_ends_at_once
            c2_no_byte_is_lost_or_doubled
            c2_what_can_not_be_spliced_says_so
            m1_a_splice_is_in_two_directions
            c7_the_flags_are_restored_after_splices
        } own {
            c2_no_splice_raises_sigpipe
        }
        splice_lanes {
            c3_a_splice_stands_in_both_lanes
            c3_who_stands_behind_a_splice_goes_on
            r5_either_source_of_a_splice_may_go
            x1_a_splice_is_done_or_not
            c1_hundreds_of_splices_complete_once_each
        } own {
            c1_very_many_splices_end_on_a_small_stack
        }
        disk_kinds {
            c2_the_ends_of_files_are_those_of_the_call
            c2_offsets_of_all_kinds_of_files_are_as_by_the_call
            c2_what_is_direct_wants_to_be_aligned
        } own {
            x1_what_waits_for_no_disk_is_given_up
            c2_no_write_raises_sigxfsz
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
            e1_each_file_is_that_of_the_callers_table
        }
        numbers {} own {
            p2_own_descriptors_leave_stdio_free
            p3_replaced_descriptors_end_no_process
            c2_what_is_opened_has_the_lowest_number
        }
        limits {
            r5_kept_handle_spares_a_lingering_close
            r5_close_does_not_linger_once_that_is_off
            l1_connected_datagram_sender_awaits_room
            l1_terminal_with_vmin_0_is_ready_with_bytes
        } own {
            c8_accept_out_of_numbers_is_paused
            r1_device_attached_later_is_heard
        }
        connects {
            c2_tcp_connect_changed_meanwhile_fails_without_peer
            c2_unix_connect_shut_down_meanwhile_fails_without_peer
            c2_unix_socket_shut_down_before_connects
            c2_refused_socket_connects_again
        } own {}
        opens {
            c2_files_are_opened_as_by_the_call
            c2_what_can_not_be_opened_says_why
            c2_thread_self_is_the_thread_that_submits
            c7_to_open_a_fifo_waits_for_nobody
            c6_what_was_opened_can_be_used_at_once
            x1_an_open_is_done_or_not
        } own {
            d2_opened_files_that_nobody_takes_are_closed
            p5_without_a_number_nothing_is_opened
            c2_to_open_takes_the_rights_of_the_thread
        }
        cached_opens {
            c2_cached_opens_are_as_by_the_call
            c2_cached_open_takes_the_file_of_now
        } own {
            c2_open_waits_for_a_lease
            c2_rights_given_up_between_two_opens
            c7_slow_fuse_open_blocks_nobody
        }
        slow_files {} own {
            c7_slow_file_holds_up_no_other_operation
            c7_hung_mount_leaves_threads_to_other_files
        }
        multishot_end {
            c8_the_end_comes_after_however_many_results
            c2_a_reset_is_the_readers_whoever_hears_of_it
            c2_a_reset_is_of_one_connection
            c8_a_newcomer_does_not_overtake
        } own {
            p1_a_pool_from_before_a_fork_is_refused
        }
        signals {} own {
            p3_the_mask_is_as_before
            p3_files_are_as_before
            p3_what_others_send_is_no_event
            p3_pollers_of_one_thread_hear_each_of_its_own
            p3_commands_start_with_nothing_blocked
            p5_pollers_of_one_thread_share_an_overflow
            p5_a_full_signal_queue_loses_nothing
        }
    } };
}
