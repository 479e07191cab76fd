#compdef vzctl vzlist vztmpl
# zsh completion for vzctl, vzlist and vztmpl.
# Made by: vzctl completion zsh >/usr/local/share/zsh/site-functions/_vzctl

_vzctl() {
    local line word about
    local -a lines candidates
    lines=("${(@f)$(vzctl __complete line "${(@)words[1,CURRENT]}" 2>/dev/null)}")
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
    _describe -V 'argument' candidates
}

if [[ ${funcstack[1]-} == _vzctl ]]; then
    _vzctl "$@"
else
    compdef _vzctl vzctl vzlist vztmpl
fi
