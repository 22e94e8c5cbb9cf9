from fiber_cli.cli import main

main()
