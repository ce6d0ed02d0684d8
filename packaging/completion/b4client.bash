# bash completion of b4client; made by: b4client completion bash
_b4client() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'run status monitor metrics renew rebind release restart reload stop teardown provision log-level lab calc decode doctor forward ports completion --help --version' -- "$cur")
        return
    fi
    case $command,$prev in
        run,--config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        run,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        run,--state-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        run,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        run,--encapsulation) mapfile -t COMPREPLY < <(compgen -W 'auto kernel userspace' -- "$cur"); return ;;
        run,--device) :; return ;;
        run,--br) :; return ;;
        run,--server) :; return ;;
        run,--dhcp6) mapfile -t COMPREPLY < <(compgen -W 'stateless prefix address+prefix external' -- "$cur"); return ;;
        run,--psid-len-hint) :; return ;;
        run,--on-stop) mapfile -t COMPREPLY < <(compgen -W 'keep withdraw release' -- "$cur"); return ;;
        run,--log-format) mapfile -t COMPREPLY < <(compgen -W 'text json syslog' -- "$cur"); return ;;
        run,--log-level) mapfile -t COMPREPLY < <(compgen -W 'debug info warning error' -- "$cur"); return ;;
        status,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        status,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        status,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        monitor,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        monitor,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        monitor,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        metrics,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        metrics,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        metrics,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        renew,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        renew,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        renew,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        rebind,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        rebind,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        rebind,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        release,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        release,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        release,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        restart,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        restart,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        restart,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        reload,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        reload,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        reload,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        stop,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        stop,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        stop,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        stop,--policy) mapfile -t COMPREPLY < <(compgen -W 'keep withdraw release' -- "$cur"); return ;;
        teardown,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        teardown,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        teardown,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        teardown,--device) :; return ;;
        provision,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        provision,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        provision,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        log-level,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        log-level,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        log-level,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        doctor,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        doctor,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        doctor,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        doctor,--config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        doctor,--ping) :; return ;;
        doctor,--stun) :; return ;;
        forward,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        forward,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        forward,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        ports,--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        ports,--instance) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        ports,--wan) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$cur"); return ;;
        ports,--interval) :; return ;;
    esac
    case $command in
        run) mapfile -t COMPREPLY < <(compgen -W '-h --help --config --wan --state-dir --run-dir --encapsulation --device --br --server --dhcp6 --psid-len-hint --no-start-delay --on-stop --log-format --log-level -v --verbose --check' -- "$cur") ;;
        status) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json' -- "$cur") ;;
        monitor) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json --recent' -- "$cur") ;;
        metrics) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan' -- "$cur") ;;
        renew) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json' -- "$cur") ;;
        rebind) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json' -- "$cur") ;;
        release) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json' -- "$cur") ;;
        restart) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json' -- "$cur") ;;
        reload) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json' -- "$cur") ;;
        stop) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json --policy' -- "$cur") ;;
        teardown) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json --device' -- "$cur") ;;
        provision) mapfile -t COMPREPLY < <(compgen -f -W '-h --help --run-dir --instance --wan --json --from-odhcp6c --clear' -- "$cur") ;;
        log-level) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json debug info warning error' -- "$cur") ;;
        lab) mapfile -t COMPREPLY < <(compgen -W '' -- "$cur") ;;
        calc) mapfile -t COMPREPLY < <(compgen -W '-h --help portset map lw port' -- "$cur") ;;
        decode) mapfile -t COMPREPLY < <(compgen -f -W '-h --help -v --verbose --json' -- "$cur") ;;
        doctor) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --config --ping --stun --json' -- "$cur") ;;
        forward) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json --any-port add del list tcp udp udplite dccp sctp' -- "$cur") ;;
        ports) mapfile -t COMPREPLY < <(compgen -W '-h --help --run-dir --instance --wan --json --watch --interval' -- "$cur") ;;
        completion) mapfile -t COMPREPLY < <(compgen -W '-h --help bash zsh' -- "$cur") ;;
    esac
}
complete -o filenames -F _b4client b4client
