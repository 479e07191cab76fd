# bash completion for vzctl, vzlist, vztmpl and the tools beside them.
# Made by: vzctl completion bash >/etc/bash_completion.d/vzctl

_vzctl() {
    local IFS=$'\n' line word
    local -a lines
    COMPREPLY=()
    # What is typed may have backslashes before its blanks; what it means has none.
    mapfile -t lines < <(vzctl __complete line "${COMP_WORDS[@]:0:COMP_CWORD}" "${2//\\/}" 2>/dev/null)
    if [[ ${lines[0]-} == ':paths' ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$2")
        return
    fi
    for line in "${lines[@]}"; do
        word=${line%%$'\t'*}
        # Only where it is needed: with a backslash before its comma, a list would not go on from what is typed.
        if [[ $word == *[!A-Za-z0-9_.,:=+/@%-]* && ${COMP_WORDS[COMP_CWORD]-} != [\"\']* ]]; then
            printf -v word '%q' "$word"
        fi
        COMPREPLY+=("$word")
    done
    if [[ ${#COMPREPLY[@]} -eq 1 && $2 == *,* ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F _vzctl vzctl vzlist vztmpl vzubc vzcalc vzmemcheck vzcpucheck vzoversell vzpid vznnc vzcfgvalidate vzsplit vzcfgscale vztop vzstat vzmetrics vzbackup vzrestore vzquota vzmigrate vzimport vzdump
