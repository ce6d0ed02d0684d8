#!/bin/sh
# shellcheck shell=ash
# From UCI to b4client's own settings. Sourced by the netifd protocol handler and by the procd script, which differ only
# in where an option's value comes from: they give b4_option NAME and b4_list NAME (one value a line).
#
# An option that is not set leaves the default in force. Values are not judged here: b4client does that, and names the
# key. They are only written so that no value can become anything else than one value.

# SECTION.KEY:TYPE, in the words of b4client.toml(5). The UCI option is KEY; of nat.timeouts it is timeout_KEY, of
# dhcp6, static, metrics and hooks SECTION_KEY.
B4_SETTINGS="
	dhcp.start_delay:bool dhcp.psid_len_hint:number dhcp.prefer_shared:bool dhcp.offer_window:number
	dhcp.keep_lease_without_option88:bool dhcp.servers:list dhcp.duid:text dhcp.iaid:number
	dhcp.hardware_address:text dhcp.hostname:text dhcp.rfc8539:text dhcp.saddr_retry:number
	provisioning.mechanisms:list provisioning.profile:text provisioning.prefixes:list
	static.mode:text static.ipv4:text static.psid:number static.psid_len:number static.offset:number
	static.bind_prefix:text
	dhcp6.mode:text dhcp6.socket:text dhcp6.rapid_commit:bool dhcp6.prefix_len_hint:number
	softwire.device:text softwire.encapsulation:text softwire.default_route:bool softwire.route_metric:number
	softwire.lan:list softwire.accept_local:bool softwire.clamp_mss:bool softwire.br:text softwire.local:text
	softwire.aftr:text softwire.interface_identifier:text softwire.mtu:number softwire.mesh:text
	softwire.prefix_lan:text
	nat.timeouts.udp:number nat.timeouts.udp_stream:number nat.timeouts.tcp_established:number
	nat.timeouts.tcp_transitory:number nat.timeouts.icmp:number
	daemon.state_dir:text daemon.run_dir:text daemon.stop:text daemon.log_level:text daemon.log_format:text
	daemon.interface_wait:number
	metrics.address:text metrics.port:number metrics.textfile:text metrics.textfile_interval:number
	hooks.script:text hooks.timeout:number hooks.dns:text
"

# The keys of a [[static.rule]].
B4_RULE="ipv6:text ipv4:text ea_len:number offset:number psid:number psid_len:number fmr:bool"

b4_text() { # a TOML string: no control characters, backslash and quote escaped
	printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037\177' | sed 's/[\\"]/\\&/g')"
}

b4_value() { # TYPE VALUE; what is not of the type goes as text, for b4client to refuse with the key's name
	case "$1:$2" in
	bool:1 | bool:on | bool:true | bool:yes | bool:enabled) printf true ;;
	bool:0 | bool:off | bool:false | bool:no | bool:disabled) printf false ;;
	number:0x | number:0x*[!0-9a-fA-F]*) b4_text "$2" ;;
	number:0x*) printf '%s' "$2" ;;
	number:*[!0-9.]* | number:.* | number:*. | number:*.*.* | number:0[0-9]*) b4_text "$2" ;;
	number:?*) printf '%s' "$2" ;;
	*) b4_text "$2" ;;
	esac
}

b4_array() { # one value a line on standard input
	local item separator=""
	printf '['
	while IFS= read -r item; do
		[ -n "$item" ] || continue
		printf '%s' "$separator"
		b4_text "$item"
		separator=", "
	done
	printf ']'
}

b4_option_name() { # SECTION.KEY
	case "$1" in
	nat.timeouts.*) echo "timeout_${1##*.}" ;;
	dhcp6.* | static.* | metrics.* | hooks.*) echo "${1%.*}_${1##*.}" ;;
	*) echo "${1##*.}" ;;
	esac
}

# b4_write_settings WAN: the whole file on standard output, without port forwards.
b4_write_settings() {
	local setting key type name value
	printf 'wan.interface = %s\n' "$(b4_text "$1")"
	for setting in $B4_SETTINGS; do
		key=${setting%:*}
		type=${setting##*:}
		name=$(b4_option_name "$key")
		if [ "$type" = list ]; then
			value=$(b4_list "$name" | b4_array)
			[ "$value" = "[]" ] || printf '%s = %s\n' "$key" "$value"
		else
			value=$(b4_option "$name")
			[ -z "$value" ] || printf '%s = %s\n' "$key" "$(b4_value "$type" "$value")"
		fi
	done
}

# b4_write_table SECTION INSTANCE TABLE KEY:TYPE...: a section of /etc/config/b4client as a [[TABLE]] of the settings,
# unless it is another instance's.
b4_write_table() {
	local section="$1" instance key value
	config_get instance "$section" instance
	[ -z "$instance" ] || [ "$instance" = "$2" ] || return 0
	printf '\n[[%s]]\n' "$3"
	shift 3
	for key in "$@"; do
		config_get value "$section" "${key%:*}"
		[ -z "$value" ] || printf '%s = %s\n' "${key%:*}" "$(b4_value "${key##*:}" "$value")"
	done
}

# For config_foreach: a "config forward" and a "config rule" section.
b4_write_forward() { # SECTION INSTANCE
	b4_write_table "$1" "$2" forward protocol:text port:number to:text to_port:number on_change:text
}

b4_write_rule() { # SECTION INSTANCE
	# shellcheck disable=SC2086 # a list
	b4_write_table "$1" "$2" static.rule $B4_RULE
}
