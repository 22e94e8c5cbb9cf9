from fiber_cli.cli.app import main

main()
