#compdef vzctl vzlist vztmpl vzubc vzcalc vzmemcheck vzcpucheck vzoversell vzpid vznnc vzcfgvalidate vzsplit vzcfgscale vztop vzstat vzmetrics vzbackup vzrestore vzquota vzmigrate vzimport vzdump
# zsh completion for vzctl, vzlist, vztmpl and the tools that check the node.
# Made by: vzctl completion zsh >/usr/local/share/zsh/site-functions/_vzctl

_vzctl() {
    local line word about
    local -a lines candidates more
    # What the words mean, without the quotes and backslashes they are typed with.
    word=${(Q)${words[CURRENT]#[\"\']}}
    lines=("${(@f)$(vzctl __complete line "${(@Q)words[1,CURRENT-1]}" "$word" 2>/dev/null)}")
    if [[ ${lines[1]} == ':paths' ]]; then
        _files
        return
    fi
    for line in $lines; do
        [[ -n $line ]] || continue
        word=${line%%$'\t'*}
        about=${line#*$'\t'}
        word=${word//:/\\:}
        if [[ -n $about && $line == *$'\t'* ]]; then
            candidates+=("$word:$about")
        else
            candidates+=("$word")
        fi
    done
    # A list may go on.
    [[ ${words[CURRENT]} == *,* ]] && more=(-S '')
    _describe -V 'argument' candidates "${(@)more}"
}

if [[ ${funcstack[1]-} == _vzctl ]]; then
    _vzctl "$@"
else
    compdef _vzctl vzctl vzlist vztmpl vzubc vzcalc vzmemcheck vzcpucheck vzoversell vzpid vznnc vzcfgvalidate vzsplit vzcfgscale vztop vzstat vzmetrics vzbackup vzrestore vzquota vzmigrate vzimport vzdump
fi
