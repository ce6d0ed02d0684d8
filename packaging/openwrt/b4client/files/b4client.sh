#!/bin/sh
# shellcheck shell=ash
# netifd protocol handler: "option proto 'b4client'" in /etc/config/network.
#
#   netifd ─ setup ─▶ settings from UCI ─▶ netifd-run ─▶ b4client run
#      ▲                                       │ reads the daemon's log
#      └────────── proto_send_update ──────────┘ (softwire up, renewed, down)
#
# The softwire, its address and its route are b4client's: netifd is told about them and leaves them alone.

# shellcheck source=/dev/null
[ -n "$INCLUDE_ONLY" ] || {
	. /lib/functions.sh
	. /lib/functions/network.sh
	. ../netifd-proto.sh
	init_proto "$@"
}
# shellcheck source-path=SCRIPTDIR source=uci.sh
. "${B4_LIB:-/lib/b4client}/uci.sh"

B4_RUN=${B4_RUN:-/var/run/b4client}

b4_option() {
	local value
	json_get_var value "$1"
	printf '%s' "$value"
}

b4_list() {
	local values value
	json_get_values values "$1"
	for value in $values; do
		printf '%s\n' "$value"
	done
}

# shellcheck disable=SC2034 # netifd reads them
proto_b4client_init_config() {
	no_device=1
	available=1
	lasterror=1
	renew_handler=1

	local setting name
	proto_config_add_string tunlink
	for setting in $B4_SETTINGS; do
		name=$(b4_option_name "${setting%:*}")
		case "$setting" in
		*:list) proto_config_add_array "$name" ;;
		*:bool) proto_config_add_boolean "$name" ;;
		*) proto_config_add_string "$name" ;;
		esac
	done
}

b4_own() { # SECTION.KEY VALUE: what holds where the interface has no such option
	[ -n "$(b4_option "${1##*.}")" ] || printf '%s = %s\n' "$1" "$(b4_text "$2")"
}

proto_b4client_setup() {
	local config="$1"
	local tunlink wan file problem

	json_get_vars tunlink
	(proto_add_host_dependency "$config" "::" "$tunlink")
	[ -n "$tunlink" ] || network_find_wan6 tunlink
	network_get_device wan "$tunlink"
	[ -n "$wan" ] || {
		proto_notify_error "$config" NO_WAN_LINK
		return 1
	}

	mkdir -p "$B4_RUN/$config"
	file="$B4_RUN/$config/settings.toml"
	# The interface's own name and places first: an option of the section wins over them.
	{
		b4_own softwire.device "$(printf 'b4-%.12s' "$config")"
		b4_own daemon.run_dir "$B4_RUN/$config"
		b4_own daemon.state_dir "/var/lib/b4client"
		b4_write_settings "$wan"
		config_load b4client
		config_foreach b4_write_forward forward "$config"
		config_foreach b4_write_rule rule "$config"
	} >"$file"

	problem=$(b4client run --check --config "$file" 2>&1) || {
		logger -t b4client -p daemon.err "$config: $problem"
		proto_notify_error "$config" INVALID_CONFIG "$problem"
		proto_block_restart "$config"
		return 1
	}
	proto_run_command "$config" "${B4_LIB:-/lib/b4client}/netifd-run" "$config" "$wan" "$file"
}

proto_b4client_renew() {
	local config="$1"
	b4client renew --run-dir "$B4_RUN/$config" >/dev/null
}

proto_b4client_teardown() {
	local config="$1"
	case "$ERROR" in
	78) # the settings: starting it again and again would not help
		proto_notify_error "$config" INVALID_CONFIG
		proto_block_restart "$config"
		;;
	esac
	proto_kill_command "$config"
}

[ -n "$INCLUDE_ONLY" ] || add_protocol b4client
