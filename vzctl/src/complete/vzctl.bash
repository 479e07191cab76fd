# bash completion for vzctl, vzlist and vztmpl.
# Made by: vzctl completion bash >/etc/bash_completion.d/vzctl

_vzctl() {
    local IFS=$'\n' line
    local -a lines
    COMPREPLY=()
    mapfile -t lines < <(vzctl __complete line "${COMP_WORDS[@]:0:COMP_CWORD}" "$2" 2>/dev/null)
    if [[ ${lines[0]-} == ':paths' ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$2")
        return
    fi
    for line in "${lines[@]}"; do
        COMPREPLY+=("$(printf '%q' "${line%%$'\t'*}")")
    done
    if [[ ${#COMPREPLY[@]} -eq 1 && $2 == *,* ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F _vzctl vzctl vzlist vztmpl
