# fish completion for vzctl, vzlist and vztmpl.
# Made by: vzctl completion fish >/etc/fish/completions/vzctl.fish

function __vzctl_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines (vzctl __complete line $words 2>/dev/null)
    if test "$lines[1]" = ':paths'
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $lines
    end
end

for program in vzctl vzlist vztmpl
    complete -c $program -f -a '(__vzctl_complete)'
end
